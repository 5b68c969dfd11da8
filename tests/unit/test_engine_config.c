/* SPDX-License-Identifier: Apache-2.0 */
/* engine: configurations as published, refused ones, and what is written. */
#include <math.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/mem.h"
#include "engine/model/layout.h"
#include "engine/model/model.h"
#include "engine_fixture.h"

static fm_status_t parse(const char *text, fm_engine_config_t *config,
                         fm_error_t *err)
{
    fm_json_t *json = NULL;

    FM_ASSERT_OK(fm_json_parse(text, strlen(text), "test", &json, err), err);
    fm_status_t rc = fm_engine_config_parse(json, config, err);
    fm_json_drop(json);
    return rc;
}

static fm_engine_config_t parsed(const char *text)
{
    fm_engine_config_t config = {0};
    fm_error_t err = {0};

    FM_ASSERT_OK(parse(text, &config, &err), &err);
    return config;
}

#define GOOD                                                                   \
    "\"vocab_size\": 260, \"hidden_size\": 64, \"intermediate_size\": 96, "    \
    "\"num_hidden_layers\": 2"
#define HEADS GOOD ", \"num_attention_heads\": 4"
#define TYPE(type) ", \"model_type\": \"" type "\", \"num_key_value_heads\": 4"

static void test_refusals(void)
{
    static const struct {
        const char *text;
        fm_status_t status;
        const char *part;
    } cases[] = {
        {"[]", FM_ERR_INVALID, "want an object"},
        {"{" GOOD "}", FM_ERR_INVALID, "num_attention_heads: missing"},
        {"{" GOOD ", \"num_attention_heads\": 0}", FM_ERR_INVALID,
         "num_attention_heads: bad value; want an integer from 1 to 1024"},
        {"{" GOOD ", \"num_attention_heads\": \"4\"}", FM_ERR_INVALID,
         "num_attention_heads"},
        {"{" GOOD ", \"num_attention_heads\": 5}", FM_ERR_INVALID,
         "hidden_size: 64 is not a multiple"},
        {"{" GOOD ", \"num_attention_heads\": 64}", FM_ERR_INVALID,
         "even, whole width"},
        {"{" HEADS ", \"num_key_value_heads\": 3}", FM_ERR_INVALID,
         "num_key_value_heads: 3 does not divide"},
        {"{" HEADS ", \"model_type\": \"mistral\"}", FM_ERR_INVALID,
         "num_key_value_heads: 8 does not divide"},
        {"{" HEADS ", \"head_dim\": 15}", FM_ERR_INVALID, "head_dim: 15 is"},
        {"{" HEADS ", \"head_dim\": 2048}", FM_ERR_INVALID, "from 2 to 1024"},
        {"{" HEADS ", \"rope_theta\": -1}", FM_ERR_INVALID, "rope_theta"},
        {"{" HEADS ", \"rms_norm_eps\": 1}", FM_ERR_INVALID,
         "rms_norm_eps: want a number from 1e-12 to 0.1"},
        {"{" HEADS ", \"tie_word_embeddings\": 1}", FM_ERR_INVALID,
         "tie_word_embeddings"},
        {"{" HEADS ", \"attention_bias\": \"yes\"}", FM_ERR_INVALID,
         "attention_bias: want true or false"},
        {"{" HEADS ", \"hidden_act\": \"gelu\"}", FM_ERR_UNSUPPORTED,
         "hidden_act"},
        {"{" HEADS ", \"attention_dropout\": 0.1}", FM_ERR_UNSUPPORTED,
         "attention_dropout: only 0"},
        {"{" HEADS ", \"partial_rotary_factor\": 0.5}", FM_ERR_UNSUPPORTED,
         "partial_rotary_factor"},
        {"{" HEADS ", \"quantization_config\": {\"bits\": 4}}",
         FM_ERR_UNSUPPORTED, "quantization_config"},
        {"{" HEADS ", \"model_type\": \"gemma2\"}", FM_ERR_UNSUPPORTED,
         "model_type: \"gemma2\" is not supported; want \"llama\""},
        {"{" HEADS ", \"model_type\": 3}", FM_ERR_UNSUPPORTED, "not a text"},
        {"{" HEADS TYPE("qwen2") ", \"attention_bias\": true}",
         FM_ERR_UNSUPPORTED, "attention_bias: a qwen2 has no such key"},
        {"{" HEADS TYPE("qwen3") ", \"mlp_bias\": true}", FM_ERR_UNSUPPORTED,
         "mlp_bias: a qwen3"},
        {"{" HEADS ", \"rope_scaling\": 4}", FM_ERR_INVALID,
         "rope_scaling: want an object or null"},
        {"{" HEADS ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4}}",
         FM_ERR_UNSUPPORTED, "rope_type \"yarn\" is not supported"},
        {"{" HEADS ", \"rope_scaling\": {\"type\": \"linear\"}}",
         FM_ERR_INVALID, "rope_scaling.factor: want a number from 1"},
        {"{" HEADS ", \"rope_scaling\": {\"rope_type\": \"llama3\", "
         "\"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4}}",
         FM_ERR_INVALID, "low_freq_factor < high_freq_factor"},
        {"{" HEADS ", \"rope_parameters\": {\"rope_theta\": \"big\"}}",
         FM_ERR_INVALID, "rope_theta: want a number"},
        {"{" HEADS ", \"rope_parameters\": {\"partial_rotary_factor\": 0.5}}",
         FM_ERR_UNSUPPORTED, "rope_parameters.partial_rotary_factor"},
        {"{" HEADS ", \"rope_parameters\": {\"full_attention\": {}}}",
         FM_ERR_UNSUPPORTED, "rope_parameters.full_attention"},
        {"{" HEADS TYPE("mistral") ", \"sliding_window\": 0}", FM_ERR_INVALID,
         "sliding_window: want null or an integer from 1"},
        {"{" HEADS TYPE("qwen3") ", \"layer_types\": [\"full_attention\"]}",
         FM_ERR_INVALID, "layer_types: want a list of 2 texts"},
        {"{" HEADS TYPE("qwen3") ", \"layer_types\": [\"full_attention\", "
                                 "\"linear_attention\"]}",
         FM_ERR_UNSUPPORTED, "layer_types: layer 1: only"},
        {"{" HEADS TYPE("qwen3") ", \"layer_types\": [\"full_attention\", "
                                 "\"sliding_attention\"]}",
         FM_ERR_INVALID, "without use_sliding_window"},
        {"{" HEADS ", \"layer_types\": [\"full_attention\", "
         "\"sliding_attention\"]}",
         FM_ERR_UNSUPPORTED, "layer 1 differs"},
        {"{\"vocab_size\": 1048576, \"hidden_size\": 65536, "
         "\"intermediate_size\": 1048576, \"num_hidden_layers\": 1024, "
         "\"num_attention_heads\": 64}",
         FM_ERR_LIMIT, "parameters"},
    };

    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        fm_engine_config_t config = {.vocab_size = 7};
        fm_error_t err = {0};
        CU_ASSERT(fixture_refused(parse(cases[i].text, &config, &err),
                                  cases[i].status, &err, cases[i].part));
        CU_ASSERT(config.vocab_size == 7);
    }
}

static bool layer_windowed(const fm_engine_config_t *config, size_t layer)
{
    return fm_engine_layer_heads(config, layer).window > 0;
}

/* The published files, but for keys that say nothing about arithmetic. */
static void test_published(void)
{
    fm_engine_config_t c = parsed(
        "{\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": "
        "false, \"attention_dropout\": 0.0, \"bos_token_id\": 128000, "
        "\"head_dim\": 64, \"hidden_act\": \"silu\", \"hidden_size\": 2048, "
        "\"initializer_range\": 0.02, \"intermediate_size\": 8192, "
        "\"max_position_embeddings\": 131072, \"mlp_bias\": false, "
        "\"model_type\": \"llama\", \"num_attention_heads\": 32, "
        "\"num_hidden_layers\": 16, \"num_key_value_heads\": 8, "
        "\"pretraining_tp\": 1, \"rms_norm_eps\": 1e-05, \"rope_scaling\": "
        "{\"factor\": 32.0, \"high_freq_factor\": 4.0, \"low_freq_factor\": "
        "1.0, \"original_max_position_embeddings\": 8192, \"rope_type\": "
        "\"llama3\"}, \"rope_theta\": 500000.0, \"tie_word_embeddings\": true, "
        "\"torch_dtype\": \"bfloat16\", \"vocab_size\": 128256}");
    CU_ASSERT(fm_engine_config_param_count(&c) == 1235814400); /* the 1B */
    CU_ASSERT(c.rope_scaling.type == FM_ENGINE_ROPE_LLAMA3);

    c = parsed("{\"attention_dropout\": 0.0, \"hidden_act\": \"silu\", "
               "\"hidden_size\": 896, \"intermediate_size\": 4864, "
               "\"max_position_embeddings\": 32768, \"max_window_layers\": 21, "
               "\"model_type\": \"qwen2\", \"num_attention_heads\": 14, "
               "\"num_hidden_layers\": 24, \"num_key_value_heads\": 2, "
               "\"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0, "
               "\"sliding_window\": 32768, \"tie_word_embeddings\": true, "
               "\"use_mrope\": false, \"use_sliding_window\": false, "
               "\"vocab_size\": 151936}");
    CU_ASSERT(fm_engine_config_param_count(&c) == 494032768); /* the 0.5B */
    CU_ASSERT(c.sliding_window == 0 && !layer_windowed(&c, 23));

    c = parsed("{\"attention_bias\": false, \"attention_dropout\": 0.0, "
               "\"head_dim\": 128, \"hidden_act\": \"silu\", \"hidden_size\": "
               "1024, \"intermediate_size\": 3072, \"max_position_embeddings\":"
               " 40960, \"max_window_layers\": 28, \"model_type\": \"qwen3\", "
               "\"num_attention_heads\": 16, \"num_hidden_layers\": 28, "
               "\"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-06, "
               "\"rope_scaling\": null, \"rope_theta\": 1000000, "
               "\"sliding_window\": null, \"tie_word_embeddings\": true, "
               "\"use_sliding_window\": false, \"vocab_size\": 151936}");
    CU_ASSERT(fm_engine_config_param_count(&c) == 596049920); /* the 0.6B */
    CU_ASSERT(fm_engine_mixed_width(&c) == 2048);

    c = parsed("{\"hidden_act\": \"silu\", \"hidden_size\": 4096, "
               "\"intermediate_size\": 14336, \"max_position_embeddings\": "
               "32768, \"model_type\": \"mistral\", \"num_attention_heads\": "
               "32, \"num_hidden_layers\": 32, \"num_key_value_heads\": 8, "
               "\"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, "
               "\"sliding_window\": 4096, \"tie_word_embeddings\": false, "
               "\"vocab_size\": 32000}");
    CU_ASSERT(fm_engine_config_param_count(&c) == 7241732096); /* the 7B */
    CU_ASSERT(fm_engine_layer_heads(&c, 31).window == 4096);
}

/* What an absent key means differs by family. */
static void test_absent(void)
{
    fm_engine_config_t c =
        parsed("{" HEADS ", \"rope_scaling\": null, \"attention_bias\": false, "
               "\"torch_dtype\": \"float32\", \"head_dim\": null}");
    CU_ASSERT(c.num_key_value_heads == 4 && c.head_dim == 16);
    CU_ASSERT(c.max_position_embeddings == 2048 && c.sliding_window == 0);
    CU_ASSERT(c.rope_theta == 10000 && c.rms_norm_eps == 1e-6);
    CU_ASSERT(c.initializer_range == 0.02 && !c.attention_bias);

    c = parsed("{" HEADS ", \"model_type\": \"mistral\", "
               "\"num_key_value_heads\": null}");
    CU_ASSERT(c.num_key_value_heads == 4 && c.sliding_window == 4096);
    CU_ASSERT(c.max_position_embeddings == 131072 && layer_windowed(&c, 0));
    c = parsed("{" HEADS TYPE("mistral") ", \"sliding_window\": null}");
    CU_ASSERT(c.sliding_window == 0 && !layer_windowed(&c, 0));

    c = parsed("{" HEADS TYPE("qwen3") "}");
    CU_ASSERT(c.head_dim == 128 && c.max_position_embeddings == 32768);
    c = parsed("{" HEADS TYPE("qwen2") ", \"use_sliding_window\": true}");
    CU_ASSERT(c.head_dim == 16 && c.sliding_window == 0); /* two layers < 28 */
    c = parsed("{" HEADS TYPE("qwen2") ", \"use_sliding_window\": true, "
                                       "\"max_window_layers\": 1}");
    CU_ASSERT(c.sliding_window == 4096);
    CU_ASSERT(!layer_windowed(&c, 0) && layer_windowed(&c, 1));
    c = parsed(
        "{" HEADS TYPE("qwen2") ", \"use_sliding_window\": true, "
                                "\"sliding_window\": 7, \"layer_types\": "
                                "[\"sliding_attention\", \"full_attention\"]}");
    CU_ASSERT(layer_windowed(&c, 0) && !layer_windowed(&c, 1));
}

/* Both forms of the rotations say the same. */
static void test_rope_forms(void)
{
#define LLAMA3                                                                 \
    "\"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "         \
    "\"original_max_position_embeddings\": 64"
    static const char *const forms[] = {
        "{" HEADS ", \"rope_theta\": 500, \"rope_scaling\": "
        "{\"rope_type\": \"llama3\", " LLAMA3 "}}",
        "{" HEADS ", \"rope_theta\": 500, \"rope_scaling\": "
        "{\"type\": \"llama3\", " LLAMA3 "}}",
        "{" HEADS ", \"rope_parameters\": {\"rope_theta\": 500, "
        "\"rope_type\": \"llama3\", " LLAMA3 "}}",
        "{" HEADS ", \"rope_theta\": 7, \"rope_scaling\": {}, "
        "\"rope_parameters\": {\"rope_theta\": 500, \"rope_type\": "
        "\"llama3\", " LLAMA3 "}}",
    };
    for (size_t i = 0; i < FM_COUNT_OF(forms); i++) {
        fm_engine_config_t c = parsed(forms[i]);
        double slow = pow(500, -14.0 / 16);
        CU_ASSERT(c.rope_theta == 500);
        CU_ASSERT(fm_engine_rope_rate(&c, 0) == 1); /* ten turns in 64 */
        CU_ASSERT(fabs(fm_engine_rope_rate(&c, 7) - slow / 8) < 1e-15);
        double between = fm_engine_rope_rate(&c, 2);
        CU_ASSERT(between < pow(500, -4.0 / 16) &&
                  between > pow(500, -4.0 / 16) / 8);
    }
    fm_engine_config_t c =
        parsed("{" HEADS ", \"rope_scaling\": {\"type\": \"linear\", "
               "\"factor\": 2.5}}");
    CU_ASSERT(fm_engine_rope_rate(&c, 0) == 1 / 2.5);
    c = parsed("{" HEADS ", \"rope_parameters\": {\"rope_type\": \"default\", "
               "\"rope_theta\": 100, \"factor\": 3}}");
    CU_ASSERT(fabs(fm_engine_rope_rate(&c, 4) - 0.1) < 1e-15);
}

static void test_round_trip(void)
{
    static const char *const texts[] = {
        "{" HEADS ", \"tie_word_embeddings\": true}",
        "{" HEADS ", \"attention_bias\": true, \"mlp_bias\": true, "
        "\"head_dim\": 10, \"initializer_range\": 0.5}",
        "{" HEADS ", \"rope_theta\": 5, \"rope_scaling\": "
        "{\"rope_type\": \"llama3\", " LLAMA3 "}}",
        "{" HEADS ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 3}}",
        "{" HEADS TYPE("mistral") ", \"sliding_window\": 12}",
        "{" HEADS TYPE("mistral") ", \"sliding_window\": null}",
        "{" HEADS TYPE("qwen2") "}",
        "{" HEADS TYPE(
            "qwen2") ", \"use_sliding_window\": true, "
                     "\"max_window_layers\": 1, \"sliding_window\": 5}",
        "{" HEADS TYPE(
            "qwen3") ", \"attention_bias\": true, "
                     "\"use_sliding_window\": true, \"layer_types\": "
                     "[\"sliding_attention\", \"full_attention\"]}",
    };

    for (size_t i = 0; i < FM_COUNT_OF(texts); i++) {
        fm_engine_config_t config = parsed(texts[i]);
        fm_engine_config_t again = {0};
        fm_error_t err = {0};
        fm_json_t *json = fm_engine_config_to_json(&config);
        FM_ASSERT_OK(fm_engine_config_parse(json, &again, &err), &err);
        fm_json_t *twice = fm_engine_config_to_json(&again);
        CU_ASSERT(json && twice && fm_json_equal(json, twice));
        CU_ASSERT(config.family == again.family);
        CU_ASSERT(config.sliding_window == again.sliding_window);
        CU_ASSERT(memcmp(config.windowed, again.windowed,
                         sizeof(config.windowed)) == 0);
        CU_ASSERT(config.rope_scaling.type == again.rope_scaling.type);
        CU_ASSERT(config.rope_scaling.factor == again.rope_scaling.factor);
        CU_ASSERT(config.attention_bias == again.attention_bias);
        CU_ASSERT(config.head_dim == again.head_dim);
        CU_ASSERT(config.initializer_range == again.initializer_range);
        CU_ASSERT(fm_engine_config_param_count(&config) ==
                  fm_engine_config_param_count(&again));
        fm_json_drop(json);
        fm_json_drop(twice);
    }
}

static const char *const hostile_values[] = {
    "0",
    "-1",
    "1",
    "3",
    "2147483648",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "1e300",
    "-1e300",
    "1e-320",
    "0.5",
    "\"x\"",
    "[]",
    "[1]",
    "[\"full_attention\"]",
    "{}",
    "{\"rope_type\": 3}",
    "{\"type\": \"linear\", \"factor\": 1e300}",
    "{" LLAMA3 "}",
    "{\"type\": \"llama3\", \"factor\": 2, \"low_freq_factor\": 1e-320}",
    "null",
    "true",
    "false"};
static const char *const hostile_keys[] = {"model_type",
                                           "vocab_size",
                                           "hidden_size",
                                           "intermediate_size",
                                           "num_hidden_layers",
                                           "num_attention_heads",
                                           "num_key_value_heads",
                                           "head_dim",
                                           "max_position_embeddings",
                                           "rope_theta",
                                           "rms_norm_eps",
                                           "initializer_range",
                                           "rope_scaling",
                                           "rope_parameters",
                                           "original_max_position_embeddings",
                                           "sliding_window",
                                           "use_sliding_window",
                                           "max_window_layers",
                                           "layer_types",
                                           "tie_word_embeddings",
                                           "attention_bias",
                                           "mlp_bias",
                                           "hidden_act",
                                           "attention_dropout",
                                           "partial_rotary_factor",
                                           "quantization_config"};

/* One key at a time replaced by what nobody should write: a refusal with a
 * reason, or a configuration within its limits. */
static void test_hostile_values(void)
{
    static const char *const bases[] = {
        "{" HEADS "}", "{" HEADS TYPE("mistral") ", \"sliding_window\": 4}",
        "{" HEADS TYPE("qwen2") ", \"use_sliding_window\": true, "
                                "\"max_window_layers\": 1}",
        "{" HEADS TYPE("qwen3") ", \"rope_scaling\": {\"type\": \"linear\", "
                                "\"factor\": 2}}"};

    for (size_t i = 0; i < FM_COUNT_OF(bases) * FM_COUNT_OF(hostile_keys) *
                               FM_COUNT_OF(hostile_values);
         i++) {
        const char *value = hostile_values[i % FM_COUNT_OF(hostile_values)];
        const char *key = hostile_keys[i / FM_COUNT_OF(hostile_values) %
                                       FM_COUNT_OF(hostile_keys)];
        const char *base =
            bases[i / FM_COUNT_OF(hostile_values) / FM_COUNT_OF(hostile_keys)];
        fm_engine_config_t config = {0};
        fm_error_t err = {0};
        char *wrapped = fm_asprintf("[%s]", value);
        fm_json_t *json = NULL;
        fm_json_t *list = NULL;
        FM_ASSERT_OK(fm_json_parse(base, strlen(base), "base", &json, &err),
                     &err);
        FM_ASSERT_OK(
            fm_json_parse(wrapped, strlen(wrapped), "value", &list, &err),
            &err);
        FM_ASSERT_OK(fm_json_set(json, key, fm_json_keep(fm_json_at(list, 0))),
                     &err);
        if (fm_engine_config_parse(json, &config, &err) < 0) {
            CU_ASSERT(strncmp(err.text, "config: ", 8) == 0);
        } else {
            CU_ASSERT(fm_engine_config_param_count(&config) <=
                      FM_ENGINE_PARAM_LIMIT);
            CU_ASSERT(fm_engine_rope_rate(&config, config.head_dim / 2 - 1) >
                      0);
            CU_ASSERT(fm_engine_layer_heads(&config, 0).window <= (size_t)1
                                                                      << 30);
        }
        fm_json_drop(json);
        fm_json_drop(list);
        free(wrapped);
    }
}

/* A configuration by hand is held to the same rules. */
static void test_by_hand(void)
{
    fm_engine_config_t c = fixture_config;
    fm_error_t err = {0};

    c.sliding_window = 5;
    CU_ASSERT(fixture_refused(fm_engine_config_check(&c, &err), FM_ERR_INVALID,
                              &err, "a llama has none"));
    c.family = FM_ENGINE_QWEN2;
    FM_ASSERT_OK(fm_engine_config_check(&c, &err), &err);
    CU_ASSERT(layer_windowed(&c, 0) && layer_windowed(&c, 1));
    CU_ASSERT(c.windowed[0] == 3 && c.windowed[1] == 0);
    c.family = (fm_engine_family_t)17;
    CU_ASSERT(fixture_refused(fm_engine_config_check(&c, &err), FM_ERR_INVALID,
                              &err, "unknown family 17"));
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"refusals", test_refusals},
        {"published configurations", test_published},
        {"absent keys", test_absent},
        {"rotations, old and new form", test_rope_forms},
        {"round trip", test_round_trip},
        {"hostile values", test_hostile_values},
        {"by hand", test_by_hand},
    };

    return fm_test_main("engine configuration", cases, FM_COUNT_OF(cases));
}
