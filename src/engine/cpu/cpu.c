/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU backend: host memory, and the table of its operations. */
#include "engine/cpu/cpu.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/mem.h"

static void *cpu_alloc(fm_engine_backend_t *be, size_t bytes)
{
    const size_t align = 64;
    const size_t large = (size_t)1 << 26; /* worth reading a few files for */

    (void)be;
    if (fm_fault("base.alloc") || bytes > SIZE_MAX - align ||
        (bytes >= large && bytes > fm_engine_cpu_memory_left())) {
        return NULL;
    }
    size_t rounded = (bytes + align) / align * align;
    void *block = aligned_alloc(align, rounded);
    if (block) {
        memset(block, 0, rounded);
    }
    return block;
}

static void cpu_release(fm_engine_backend_t *be, void *block)
{
    (void)be;
    free(block);
}

static void cpu_copy(fm_engine_backend_t *be, void *dst, const void *src,
                     size_t bytes)
{
    (void)be;
    if (bytes > 0) {
        memcpy(dst, src, bytes);
    }
}

static void cpu_zero(fm_engine_backend_t *be, void *dst, size_t bytes)
{
    (void)be;
    memset(dst, 0, bytes);
}

static fm_status_t cpu_sync(fm_engine_backend_t *be, fm_error_t *err)
{
    fm_engine_cpu_t *cpu = (fm_engine_cpu_t *)be;
    fm_status_t rc = cpu->failed;

    cpu->failed = FM_OK;
    return rc < 0 ? fm_error_set(err, rc, "cpu backend: %s", fm_status_name(rc))
                  : FM_OK;
}

float *fm_engine_cpu_scratch(fm_engine_backend_t *be, size_t count)
{
    fm_engine_cpu_t *cpu = (fm_engine_cpu_t *)be;

    if (count > cpu->scratch_count) {
        float *grown = cpu_alloc(be, count * sizeof(float));
        if (!grown) {
            cpu->failed = cpu->failed < 0 ? cpu->failed : FM_ERR_NO_MEMORY;
            return NULL;
        }
        free(cpu->scratch);
        cpu->scratch = grown;
        cpu->scratch_count = count;
    }
    return cpu->scratch;
}

static void cpu_destroy(fm_engine_backend_t *be)
{
    fm_engine_cpu_t *cpu = (fm_engine_cpu_t *)be;

    free(cpu->scratch);
    free(cpu);
}

static const fm_engine_ops_t cpu_ops = {
    .name = "cpu",
    .destroy = cpu_destroy,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .sync = cpu_sync,
    .gather = fm_engine_cpu_gather,
    .scatter_add = fm_engine_cpu_scatter_add,
    .rmsnorm_forward = fm_engine_cpu_rmsnorm_forward,
    .rmsnorm_backward = fm_engine_cpu_rmsnorm_backward,
    .linear_forward = fm_engine_cpu_linear_forward,
    .linear_rows = fm_engine_cpu_linear_rows,
    .lora_rows = fm_engine_cpu_lora_rows,
    .linear_backward = fm_engine_cpu_linear_backward,
    .bias_add = fm_engine_cpu_bias_add,
    .bias_backward = fm_engine_cpu_bias_backward,
    .head_norm_forward = fm_engine_cpu_head_norm_forward,
    .head_norm_backward = fm_engine_cpu_head_norm_backward,
    .lora_forward = fm_engine_cpu_lora_forward,
    .lora_backward = fm_engine_cpu_lora_backward,
    .dropout = fm_engine_cpu_dropout,
    .rope = fm_engine_cpu_rope,
    .attention_forward = fm_engine_cpu_attention_forward,
    .attention_backward = fm_engine_cpu_attention_backward,
    .cache_store = fm_engine_cpu_cache_store,
    .attention_pages = fm_engine_cpu_attention_pages,
    .swiglu_forward = fm_engine_cpu_swiglu_forward,
    .swiglu_backward = fm_engine_cpu_swiglu_backward,
    .logprob = fm_engine_cpu_logprob,
    .logprob_entropy = fm_engine_cpu_logprob_entropy,
    .sum_squares = fm_engine_cpu_sum_squares,
    .adamw = fm_engine_cpu_adamw,
};

fm_status_t fm_engine_backend_create_cpu(fm_engine_backend_t **backend_out,
                                         fm_error_t *err)
{
    fm_engine_cpu_t *cpu = fm_calloc(1, sizeof(*cpu));

    if (!cpu) {
        return fm_no_memory(err);
    }
    /* the split of a product among threads would change its last bits */
    openblas_set_num_threads(1);
    cpu->base.ops = &cpu_ops;
    *backend_out = &cpu->base;
    return FM_OK;
}

fm_engine_backend_t *fm_engine_backend_destroy(fm_engine_backend_t *backend)
{
    if (backend) {
        backend->ops->destroy(backend);
    }
    return NULL;
}
