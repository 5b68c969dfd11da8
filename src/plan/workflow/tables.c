/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of flowmesh/v1 (schema.h); docs/spec/workflow.md §3 to §6. */
#include "base/mem.h"
#include "plan/workflow/schema.h"

#define MODEL_TASKS                                                            \
    (FM_WF_INFERENCE | FM_WF_SFT | FM_WF_DPO | FM_WF_EVALUATE | FM_WF_LOGPROBS)
#define TRAINING_TASKS (FM_WF_SFT | FM_WF_DPO | FM_WF_LOGPROBS)
#define DATA_TASKS (FM_WF_ECHO | FM_WF_RETRIEVAL | MODEL_TASKS)
#define SAMPLE_TASKS (FM_WF_SFT | FM_WF_DPO | FM_WF_EVALUATE | FM_WF_LOGPROBS)

#define BIG 1e9                     /* counts: no run reaches it */
#define SEED_MAX 9007199254740991.0 /* 2^53 − 1: exact in every JSON reader */

/* Rows in short. */
#define ANY(n) .name = (n), .type = FM_WF_ANY
#define BOOL(n) .name = (n), .type = FM_WF_BOOL
#define INT(n, lo, hi) .name = (n), .type = FM_WF_INT, .min = (lo), .max = (hi)
#define REAL(n, lo, hi)                                                        \
    .name = (n), .type = FM_WF_REAL, .min = (lo), .max = (hi)
#define TEXT(n) .name = (n), .type = FM_WF_TEXT
#define LIST(n) .name = (n), .type = FM_WF_LIST
#define MAP(n) .name = (n), .type = FM_WF_MAP
#define SECTION(n, s) .name = (n), .type = FM_WF_SECTION, .section = &(s)
#define REFUSED(n, w) .name = (n), .type = FM_WF_REFUSED, .why = (w)
#define TABLE(symbol, title, rows)                                             \
    const fm_wf_section_t symbol = {title, rows, FM_COUNT_OF(rows)}

/* --- the document --------------------------------------------------------- */

static const fm_wf_key_t root_keys[] = {
    {TEXT("apiVersion")},
    {TEXT("kind")},
    {MAP("metadata")},
    {MAP("spec")},
};
TABLE(fm_wf_root, "the document", root_keys);

static const fm_wf_key_t metadata_keys[] = {
    {TEXT("name")},    {TEXT("owner")},
    {TEXT("tenant")},  {INT("priority", -100, 100)},
    {ANY("deadline")}, {MAP("annotations")},
};
TABLE(fm_wf_metadata, "metadata", metadata_keys);

static const fm_wf_key_t base_keys[] = {
    {TEXT("tenant")},  {INT("priority", -100, 100)},
    {ANY("deadline")}, {LIST("stages")},
    {MAP("graph")},    {MAP("sweep")},
};
TABLE(fm_wf_base_only, "spec", base_keys);

static const fm_wf_key_t node_keys[] = {
    {TEXT("name")},
    {TEXT("id")},
    {ANY("dependsOn")},
    {MAP("spec")},
};
TABLE(fm_wf_node, "a node", node_keys);

/* --- resources and output: hints ------------------------------------------ */

static const fm_wf_key_t gpu_keys[] = {
    {TEXT("type")},
    {INT("count", 0, 4096)},
    {ANY("memory")},
};
static TABLE(gpu, "resources.hardware.gpu", gpu_keys);

static const fm_wf_key_t hardware_keys[] = {
    {ANY("cpu")},
    {ANY("memory")},
    {SECTION("gpu", gpu)},
};
static TABLE(hardware, "resources.hardware", hardware_keys);

static const fm_wf_key_t resources_keys[] = {
    {INT("replicas", 1, 4096)},
    {SECTION("hardware", hardware)},
};
static TABLE(resources, "resources", resources_keys);

static const fm_wf_key_t destination_keys[] = {
    {TEXT("type"), .choices = "local"},
    {TEXT("path")},
};
static TABLE(destination, "output.destination", destination_keys);

static const fm_wf_key_t output_keys[] = {
    {SECTION("destination", destination)},
    {LIST("artifacts")},
};
static TABLE(output, "output", output_keys);

/* --- model ---------------------------------------------------------------- */

static const fm_wf_key_t source_keys[] = {
    {TEXT("type"), .choices = "random|digest|node"},
    {TEXT("identifier")},
    {TEXT("node")},
    {TEXT("path")},
    {REFUSED("revision", "name a model by its sha256 digest")},
};
static TABLE(source, "model.source", source_keys);

static const fm_wf_key_t config_keys[] = {
    {INT("vocab_size", 2, 1e6), .fallback = "260"},
    {INT("hidden_size", 2, 65536), .fallback = "128"},
    {INT("intermediate_size", 1, 262144), .fallback = "384"},
    {INT("num_hidden_layers", 1, 1024), .fallback = "4"},
    {INT("num_attention_heads", 1, 1024), .fallback = "4"},
    {INT("num_key_value_heads", 1, 1024)},
    {INT("max_position_embeddings", 1, 1 << 24), .fallback = "512"},
    {REAL("rope_theta", 1, 1e12), .fallback = "10000.0"},
    {REAL("rms_norm_eps", 1e-12, 1), .fallback = "1e-05"},
    {BOOL("tie_word_embeddings"), .fallback = "false"},
    /* the one that src/run/ops draws weights with: part of a model's name */
    {REAL("initializer_range", 0.02, 0.02), .fallback = "0.02"},
};
TABLE(fm_wf_model_config, "model.config", config_keys);

static const fm_wf_key_t model_keys[] = {
    {SECTION("source", source)},
    {SECTION("config", fm_wf_model_config)},
    {INT("seed", 0, SEED_MAX)},
    {REFUSED("adapters", "train with sft and use the model it returns")},
    {MAP("vllm"), .hint = true},
    {MAP("transformers"), .hint = true},
};
TABLE(fm_wf_model, "model", model_keys);

/* --- data ----------------------------------------------------------------- */

static const fm_wf_key_t chunk_keys[] = {
    {INT("bytes", 1, 1 << 20), .fallback = "512"},
    {INT("stride", 1, 1 << 20)},
};
static TABLE(chunk, "data.chunk", chunk_keys);

static const fm_wf_key_t options_keys[] = {
    {TEXT("intro")},
    {TEXT("closing")},
};
static TABLE(options, "data.template.options", options_keys);

static const fm_wf_key_t template_keys[] = {
    {TEXT("name")},
    {LIST("columns")},
    {SECTION("options", options)},
};
static TABLE(template, "data.template", template_keys);

static const fm_wf_key_t jsonl_keys[] = {
    {TEXT("path")},           {TEXT("node")},         {TEXT("prompt_field")},
    {TEXT("response_field")}, {TEXT("chosen_field")}, {TEXT("rejected_field")},
    {TEXT("text_field")},
};
static TABLE(jsonl, "data.jsonl", jsonl_keys);

static const fm_wf_key_t data_keys[] = {
    {TEXT("type"),
     .choices = "list|dataset|jsonl|csv|text|node|graph_template"},
    {LIST("items")},
    {LIST("prompts")},
    {TEXT("path")},
    {TEXT("node")},
    {SECTION("jsonl", jsonl), .tasks = MODEL_TASKS},
    {SECTION("template", template), .tasks = FM_WF_INFERENCE | FM_WF_ECHO},
    {TEXT("split")},
    {REAL("test_fraction", 0, 0.999)},
    {BOOL("shuffle")},
    {INT("seed", 0, SEED_MAX)},
    {LIST("columns")},
    {SECTION("chunk", chunk)},
    {TEXT("column"), .tasks = MODEL_TASKS | FM_WF_ECHO},
    {TEXT("prompt_column"), .tasks = MODEL_TASKS},
    {TEXT("response_column"), .tasks = SAMPLE_TASKS},
    {TEXT("text_column"), .tasks = FM_WF_SFT | FM_WF_EVALUATE},
    {TEXT("chosen_column"), .tasks = SAMPLE_TASKS},
    {TEXT("rejected_column"), .tasks = SAMPLE_TASKS},
    {TEXT("separator"), .tasks = SAMPLE_TASKS},
    {INT("max_samples", 1, BIG)},
    {REFUSED("url", "copy the file and give its path")},
    {REFUSED("dataset_name", "copy the data set to a JSONL or CSV file and "
                             "give its path")},
};
TABLE(fm_wf_data, "data", data_keys);

/* --- what to do ----------------------------------------------------------- */

static const fm_wf_key_t inference_keys[] = {
    {INT("max_tokens", 1, 1 << 20), .fallback = "64"},
    {REAL("temperature", 0, 100), .fallback = "0.0"},
    {REAL("top_p", 1e-6, 1), .fallback = "1.0"},
    {INT("top_k", 0, 1e6), .fallback = "0"},
    {INT("seed", 0, SEED_MAX)},
    {TEXT("system_prompt"), .hint = true /* goes into the items */},
};
TABLE(fm_wf_inference, "inference", inference_keys);

static const fm_wf_key_t training_keys[] = {
    {REAL("learning_rate", 0, 10), .fallback = "0.001"},
    {INT("batch_size", 1, 65536), .fallback = "8"},
    {INT("gradient_accumulation_steps", 1, 65536), .fallback = "1"},
    {REAL("num_train_epochs", 1e-6, 1e6)},
    {INT("steps", 1, BIG)},
    {INT("max_seq_length", 2, 1 << 24)},
    {INT("warmup_steps", 0, BIG), .fallback = "0"},
    {TEXT("schedule"), .choices = "constant|linear|cosine",
     .fallback = "\"constant\""},
    {REAL("weight_decay", 0, 10), .fallback = "0.0"},
    {REAL("max_grad_norm", 0, 1e9), .fallback = "1.0"},
    {REAL("adam_beta1", 0, 0.999999), .fallback = "0.9"},
    {REAL("adam_beta2", 0, 0.999999), .fallback = "0.999"},
    {REAL("adam_epsilon", 1e-12, 1), .fallback = "1e-08"},
    {REAL("beta", 1e-6, 1000), .fallback = "0.1", .tasks = FM_WF_DPO},
    {INT("seed", 0, SEED_MAX)},
    {INT("save_steps", 1, BIG), .hint = true},
    {INT("logging_steps", 1, BIG), .hint = true},
};
TABLE(fm_wf_training, "training", training_keys);

static const fm_wf_key_t generation_keys[] = {
    {INT("max_new_tokens", 1, 1 << 20), .fallback = "64"},
};
TABLE(fm_wf_generation, "generation", generation_keys);

static const fm_wf_key_t condition_keys[] = {
    {TEXT("node")},
    {TEXT("field")},
    {ANY("equals")},
};
static TABLE(condition, "condition", condition_keys);

static const fm_wf_key_t export_keys[] = {
    {TEXT("path")},
    {MAP("fields")},
    {LIST("required_fields")},
};
static TABLE(jsonl_export, "postprocess.jsonl_export", export_keys);

static const fm_wf_key_t postprocess_keys[] = {
    {SECTION("jsonl_export", jsonl_export)},
};
static TABLE(postprocess, "postprocess", postprocess_keys);

#define LATER(n) REFUSED(n, "remove it")

static const fm_wf_key_t spec_keys[] = {
    {TEXT("taskType")},
    {SECTION("resources", resources), .hint = true},
    {SECTION("output", output), .hint = true},
    {INT("seed", 0, SEED_MAX)},
    {SECTION("condition", condition)},
    {SECTION("postprocess", postprocess)},
    {SECTION("model", fm_wf_model), .tasks = MODEL_TASKS},
    {SECTION("data", fm_wf_data), .tasks = DATA_TASKS},
    {SECTION("inference", fm_wf_inference), .tasks = FM_WF_INFERENCE},
    {SECTION("training", fm_wf_training), .tasks = TRAINING_TASKS},
    {SECTION("generation", fm_wf_generation), .tasks = FM_WF_EVALUATE},
    {LIST("metrics"), .tasks = FM_WF_EVALUATE},
    {ANY("code"), .tasks = FM_WF_PYTHON},
    {TEXT("entrypoint"), .tasks = FM_WF_PYTHON, .fallback = "\"main\""},
    {TEXT("emits"), .tasks = FM_WF_PYTHON, .choices = "value|items",
     .fallback = "\"value\""},
    {REAL("timeoutSeconds", 1e-3, 1e7), .tasks = FM_WF_PYTHON | FM_WF_COMMAND,
     .hint = true},
    {LIST("command"), .tasks = FM_WF_COMMAND},
    {MAP("env"), .tasks = FM_WF_COMMAND},
    {ANY("inputs"), .tasks = FM_WF_COMMAND},
    {LIST("outputs"), .tasks = FM_WF_COMMAND},
    {LATER("checkpoint")},
    {LATER("lora")},
    {LATER("reward_model")},
};
TABLE(fm_wf_spec, "spec", spec_keys);
