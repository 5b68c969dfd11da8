/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of flowmesh/v1 (schema.h); docs/spec/workflow.md §3 to §6. */
#include "plan/workflow/rows.h"

/* --- the document --------------------------------------------------------- */

static const fm_yaml_key_t root_keys[] = {
    {TEXT("apiVersion")},
    {TEXT("kind")},
    {MAP("metadata")},
    {MAP("spec")},
};
TABLE(fm_wf_root, "the document", root_keys);

static const fm_yaml_key_t metadata_keys[] = {
    {TEXT("name")},    {TEXT("owner")},
    {TEXT("tenant")},  {INT("priority", -100, 100)},
    {ANY("deadline")}, {MAP("annotations")},
};
TABLE(fm_wf_metadata, "metadata", metadata_keys);

static const fm_yaml_key_t base_keys[] = {
    {TEXT("tenant")},  {INT("priority", -100, 100)},
    {ANY("deadline")}, {LIST("stages")},
    {MAP("graph")},    {MAP("sweep")},
};
TABLE(fm_wf_base_only, "spec", base_keys);

static const fm_yaml_key_t node_keys[] = {
    {TEXT("name")},
    {TEXT("id")},
    {ANY("dependsOn")},
    {MAP("spec")},
};
TABLE(fm_wf_node, "a node", node_keys);

/* --- resources and output: hints ------------------------------------------ */

static const fm_yaml_key_t gpu_keys[] = {
    {TEXT("type")},
    {INT("count", 0, 4096)},
    {ANY("memory")},
};
static TABLE(gpu, "resources.hardware.gpu", gpu_keys);

static const fm_yaml_key_t hardware_keys[] = {
    {ANY("cpu")},
    {ANY("memory")},
    {SECTION("gpu", gpu)},
};
static TABLE(hardware, "resources.hardware", hardware_keys);

static const fm_yaml_key_t resources_keys[] = {
    {INT("replicas", 1, 4096)},
    {SECTION("hardware", hardware)},
};
static TABLE(resources, "resources", resources_keys);

static const fm_yaml_key_t destination_keys[] = {
    {TEXT("type"), .choices = "local"},
    {TEXT("path")},
};
static TABLE(destination, "output.destination", destination_keys);

static const fm_yaml_key_t output_keys[] = {
    {SECTION("destination", destination)},
    {LIST("artifacts")},
};
static TABLE(output, "output", output_keys);

/* --- model ---------------------------------------------------------------- */

static const fm_yaml_key_t source_keys[] = {
    {TEXT("type"), .choices = "random|digest|node|path|hub|huggingface|name"},
    {TEXT("identifier")},
    {TEXT("node")},
    {TEXT("path")},
    {TEXT("revision")},
    {BOOL("trust_remote_code"), .hint = true /* rules: false alone */},
};
static TABLE(source, "model.source", source_keys);

static const fm_yaml_key_t config_keys[] = {
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
    {REAL("initializer_range", 1e-9, 1), .fallback = "0.02"},
    /* of families; absent is what docs/spec/config.md makes of it */
    {TEXT("model_type"), .choices = "llama|mistral|qwen2|qwen3"},
    {INT("head_dim", 2, 1024)},
    {BOOL("attention_bias")},
    {BOOL("mlp_bias")},
    {INT("sliding_window", 1, 1 << 30)},
    {BOOL("use_sliding_window")},
    {INT("max_window_layers", 0, 1024)},
};
TABLE(fm_wf_model_config, "model.config", config_keys);

static const fm_yaml_key_t adapter_keys[] = {
    {TEXT("type"), .choices = "lora"},
    {TEXT("node")},
    {TEXT("digest")},
    {TEXT("path")},
    {REFUSED("url", "copy the adapter and give its path")},
};
TABLE(fm_wf_adapter, "an adapter", adapter_keys);

static const fm_yaml_key_t model_keys[] = {
    {SECTION("source", source)}, {SECTION("config", fm_wf_model_config)},
    {INT("seed", 0, SEED_MAX)},  {LIST("adapters")},
    {MAP("vllm"), .hint = true}, {MAP("transformers"), .hint = true},
};
TABLE(fm_wf_model, "model", model_keys);

/* --- data ----------------------------------------------------------------- */

static const fm_yaml_key_t chunk_keys[] = {
    {INT("bytes", 1, 1 << 20), .fallback = "512"},
    {INT("stride", 1, 1 << 20)},
};
static TABLE(chunk, "data.chunk", chunk_keys);

static const fm_yaml_key_t options_keys[] = {
    {TEXT("intro")},
    {TEXT("closing")},
};
static TABLE(options, "data.template.options", options_keys);

static const fm_yaml_key_t template_keys[] = {
    {TEXT("name")},
    {LIST("columns")},
    {SECTION("options", options)},
};
static TABLE(template, "data.template", template_keys);

static const fm_yaml_key_t jsonl_keys[] = {
    {TEXT("path")},         {TEXT("node")},
    {TEXT("prompt_field")}, {TEXT("response_field")},
    {TEXT("chosen_field")}, {TEXT("rejected_field")},
    {TEXT("text_field")},   {TEXT("messages_field")},
};
static TABLE(jsonl, "data.jsonl", jsonl_keys);

#define PROMPTS (FM_WF_INFERENCE | FM_WF_POLICY)
#define PAIRS                                                                  \
    (FM_WF_TUNING | FM_WF_EVALUATE | FM_WF_LOGPROBS | FM_WF_SCORE |            \
     FM_WF_REWARD)
#define COLUMNS (FM_WF_WITH_MODEL | FM_WF_REWARD)
#define SUPERVISED (FM_WF_SFT | FM_WF_LORA_SFT)

static const fm_yaml_key_t data_keys[] = {
    {TEXT("type"),
     .choices = "list|dataset|jsonl|csv|text|hdf5|node|graph_template"},
    {LIST("items")},
    {LIST("prompts")},
    {LIST("preferences"), .variants = FM_WF_DPO | FM_WF_REWARD_MODEL},
    {TEXT("path")},
    {TEXT("node")},
    {LIST("nodes")},
    {SECTION("jsonl", jsonl), .variants = FM_WF_WITH_MODEL | FM_WF_REWARD},
    {SECTION("template", template), .variants = PROMPTS | FM_WF_ECHO},
    {TEXT("split")},
    {REAL("test_fraction", 0, 0.999)},
    {BOOL("shuffle")},
    {INT("seed", 0, SEED_MAX)},
    {LIST("columns")},
    {TEXT("dataset")},
    {SECTION("chunk", chunk)},
    {TEXT("column"), .variants = COLUMNS | FM_WF_ECHO},
    {TEXT("prompt_column"), .variants = COLUMNS},
    {TEXT("response_column"), .variants = PAIRS},
    {TEXT("text_column"),
     .variants = SUPERVISED | FM_WF_EVALUATE | FM_WF_EMBEDDING},
    {TEXT("messages_column"), .variants = SUPERVISED | PROMPTS},
    {TEXT("chosen_column"), .variants = PAIRS},
    {TEXT("rejected_column"), .variants = PAIRS},
    {TEXT("choices_column"), .variants = FM_WF_EVALUATE},
    {TEXT("answer_column"), .variants = FM_WF_EVALUATE},
    {TEXT("separator"), .variants = PAIRS},
    {INT("max_samples", 1, BIG)},
    {REFUSED("url", "copy the file and give its path")},
    {REFUSED("dataset_name", "copy the data set to a JSONL or CSV file and "
                             "give its path")},
};
TABLE(fm_wf_data, "data", data_keys);

/* --- around the work ------------------------------------------------------ */

static const fm_yaml_key_t condition_keys[] = {
    {TEXT("node")},
    {TEXT("field")},
    {ANY("equals")},
};
static TABLE(condition, "condition", condition_keys);

static const fm_yaml_key_t export_keys[] = {
    {TEXT("path")},
    {MAP("fields")},
    {LIST("required_fields")},
};
static TABLE(jsonl_export, "postprocess.jsonl_export", export_keys);

static const fm_yaml_key_t postprocess_keys[] = {
    {SECTION("jsonl_export", jsonl_export)},
};
static TABLE(postprocess, "postprocess", postprocess_keys);

static const fm_yaml_key_t spec_keys[] = {
    {TEXT("taskType")},
    {SECTION("resources", resources), .hint = true},
    {SECTION("output", output), .hint = true},
    {INT("seed", 0, SEED_MAX)},
    {SECTION("condition", condition)},
    {SECTION("postprocess", postprocess)},
    {SECTION("model", fm_wf_model), .variants = FM_WF_WITH_MODEL},
    {SECTION("data", fm_wf_data), .variants = FM_WF_WITH_DATA},
    {SECTION("inference", fm_wf_inference), .variants = FM_WF_INFERENCE},
    {SECTION("training", fm_wf_training), .variants = TUNING_TERMS},
    {SECTION("training", fm_wf_policy_training), .variants = FM_WF_POLICY},
    {SECTION("lora", fm_wf_lora), .variants = FM_WF_TRAINING},
    {SECTION("generation", fm_wf_generation),
     .variants = FM_WF_EVALUATE | FM_WF_POLICY},
    {LIST("metrics"), .variants = FM_WF_EVALUATE},
    {SECTION("opponent", fm_wf_model), .variants = FM_WF_EVALUATE},
    {ANY("reward"), .variants = FM_WF_REWARD | FM_WF_EVALUATE | FM_WF_POLICY},
    {SECTION("reward_model", fm_wf_published_reward),
     .variants = FM_WF_EVALUATE | FM_WF_POLICY},
    {SECTION("scoring", fm_wf_scoring), .variants = FM_WF_SCORE},
    {SECTION("embedding", fm_wf_embedding), .variants = FM_WF_EMBEDDING},
    {SECTION("map", fm_wf_map), .variants = FM_WF_MAP_TASK},
    {SECTION("filter", fm_wf_filter), .variants = FM_WF_FILTER},
    {SECTION("dedup", fm_wf_dedup), .variants = FM_WF_DEDUP},
    {SECTION("split", fm_wf_split_parts), .variants = FM_WF_SPLIT},
    {SECTION("shard", fm_wf_shard), .variants = FM_WF_SHARD},
    {SECTION("sample", fm_wf_sample), .variants = FM_WF_SAMPLE},
    {SECTION("jsonl_export", fm_wf_export), .variants = FM_WF_EXPORT},
    {SECTION("profiling", fm_wf_profile), .variants = FM_WF_PROFILE},
    {ANY("code"), .variants = FM_WF_PYTHON},
    {TEXT("entrypoint"), .variants = FM_WF_PYTHON, .fallback = "\"main\""},
    {TEXT("emits"), .variants = FM_WF_PYTHON, .choices = "value|items",
     .fallback = "\"value\""},
    {REAL("timeoutSeconds", 1e-3, 1e7),
     .variants = FM_WF_PYTHON | FM_WF_COMMAND | FM_WF_REWARD | FM_WF_MAP_TASK |
                 FM_WF_FILTER,
     .hint = true},
    {LIST("command"), .variants = FM_WF_COMMAND},
    {MAP("env"), .variants = FM_WF_COMMAND},
    {ANY("inputs"), .variants = FM_WF_COMMAND},
    {LIST("outputs"), .variants = FM_WF_COMMAND},
    {REFUSED("checkpoint",
             "continue from the model and the adapter of a node")},
};
TABLE(fm_wf_spec, "spec", spec_keys);
