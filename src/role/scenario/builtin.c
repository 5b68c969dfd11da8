/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The published evaluation's models and workflows, in the scenario language;
 * docs/spec/scenario.md §6 lists them with what is assumed about them.
 *
 * Prompts are 128 tokens with their template; a completion is as long as its
 * limit.  A DPO pair is two sequences, each through the policy (forward and
 * backward) and the reference (forward): 8/3 of an SFT sample.  A PPO step
 * samples, scores and trains its prompts: counted as three passes.
 */
#include "role/scenario/internal.h"

#define INFER(name, model, items, tokens)                                      \
    "      - {name: " name ", task: inference, model: " model                  \
    ", items: " items ", output_tokens: " tokens ", dataset: " name            \
    ", gpu_memory: "

#define EVALUATE(first, second, third, small, large)                           \
    INFER("gsm8k", first, "200", "256")                                        \
    small "}\n" INFER("truthfulqa", second, "150", "192") small                \
        "}\n" INFER("mmlu", third, "150", "160") large "}\n"

#define TRAINED(items, of)                                                     \
    "      - {name: answer, task: inference, model: 1b, model_of: " of         \
    ", items: " items ", output_tokens: 256, dataset: questions, "             \
    "gpu_memory: 46Gi}\n"

#define NOTE(name, of)                                                         \
    "      - {name: " name ", task: inference, model: 1b, model_of: " of       \
    ", items: 1, output_tokens: 256, of: " of ", gpu_memory: 46Gi}\n"

#define PAIRS                                                                  \
    INFER("pairs", "1b", "200", "256")                                         \
    "46Gi}\n"                                                                  \
    "      - {name: export, task: script, items: 1, seconds: 1, of: pairs}\n"

#define DPO(samples, from)                                                     \
    "      - {name: dpo, task: dpo, model: 1b, samples: " samples              \
    ", sequence: 256, " from ", gpu_memory: 46Gi}\n"

#define PPO(from)                                                              \
    "      - {name: ppo, task: ppo, model: 1b, samples: 5, epochs: 6, "        \
    "sequence: 256, " from ", gpu_memory: 46Gi}\n"

#define SFT(task, from)                                                        \
    "      - {name: train, task: " task                                        \
    ", model: 1b, samples: 200, sequence: 256, " from ", gpu_memory: 46Gi}\n"

/* In parts: longer strings are not portable C. */
const char *const fm_scenario_builtin[] = {
    "models:\n"
    "  - {name: 1b, parameters: 1.24e9, kv_bytes_per_token: 32768}\n"
    "  - {name: 3b, parameters: 3.21e9, kv_bytes_per_token: 114688}\n"
    "workflows:\n"
    "  - name: '01_1'\n"
    "    stages:\n" EVALUATE(
        "1b", "1b", "1b", "22Gi",
        "22Gi") "  - name: '01_2'\n"
                "    stages:\n" EVALUATE(
                    "3b", "3b", "3b", "46Gi",
                    "46Gi") "  - name: '01_3'\n"
                            "    stages:\n" EVALUATE(
                                "1b", "1b", "3b", "22Gi",
                                "46Gi") "  - name: '02'\n"
                                        "    stages:\n" INFER(
                                            "draft", "1b", "64",
                                            "256") "22Gi}\n"
                                                   "      - {name: critique, "
                                                   "task: inference, model: "
                                                   "1b, items: 64, "
                                                   "prompt_tokens: 384, "
                                                   "output_tokens: 256, of: "
                                                   "draft, gpu_memory: 22Gi}\n"
                                                   "      - {name: rewrite, "
                                                   "task: inference, model: "
                                                   "1b, items: 64, "
                                                   "prompt_tokens: 640, "
                                                   "output_tokens: 256, of: "
                                                   "critique, "
                                                   "gpu_memory: 22Gi}\n",
    "  - name: '03'\n"
    "    stages:\n" SFT("sft", "dataset: sft") TRAINED(
        "200",
        "train") "  - name: "
                 "'04'\n"
                 "    "
                 "stages:\n" SFT(
                     "lora_sft",
                     "dataset: "
                     "sft") "   "
                            "   "
                            "- "
                            "{na"
                            "me:"
                            " an"
                            "swe"
                            "r, "
                            "tas"
                            "k: "
                            "inf"
                            "ere"
                            "nce"
                            ", "
                            "mod"
                            "el:"
                            " 1b"
                            ", "
                            "ada"
                            "pte"
                            "r_"
                            "of:"
                            " tr"
                            "ain"
                            ", "
                            "ite"
                            "ms:"
                            " 20"
                            "0, "
                            "out"
                            "put"
                            "_to"
                            "ken"
                            "s: "
                            "256"
                            ", "
                            "dat"
                            "ase"
                            "t: "
                            "que"
                            "sti"
                            "ons"
                            ", "
                            "gpu"
                            "_me"
                            "mor"
                            "y: "
                            "46G"
                            "i}"
                            "\n"
                            "  "
                            "- "
                            "nam"
                            "e: "
                            "'05"
                            "'\n"
                            "   "
                            " st"
                            "age"
                            "s:"
                            "\n" DPO("683", "dataset: preferences")
                                NOTE("brief", "dpo") TRAINED(
                                    "200",
                                    "dpo") "  - name: '06'\n"
                                           "    stages:\n" PPO(
                                               "dataset: prompts")
                                               NOTE("notes", "ppo") TRAINED(
                                                   "60",
                                                   "ppo") "  - name: '03_02'\n"
                                                          "    stages:\n" PAIRS SFT(
                                                              "sft",
                                                              "of: export") "  "
                                                                            "- "
                                                                            "na"
                                                                            "me"
                                                                            ": "
                                                                            "'0"
                                                                            "5_"
                                                                            "02"
                                                                            "'"
                                                                            "\n"
                                                                            "  "
                                                                            "  "
                                                                            "st"
                                                                            "ag"
                                                                            "es"
                                                                            ":"
                                                                            "\n" PAIRS DPO(
                                                                                "534",
                                                                                "of: export") "  - name: '06_02'\n"
                                                                                              "    stages:\n" PAIRS
                                                                                                  PPO("of: export") "mixes:\n"
                                                                                                                    "  inference_only: ['01_1', '01_2', '01_3', '02']\n"
                                                                                                                    "  post_train: ['01_1', '01_2', '01_3', '02', '03', '04', '05', '06']\n"
                                                                                                                    "  data_train: ['01_1', '01_2', '01_3', '02', '03_02', '05_02', '06_02']\n",
    NULL,
};
