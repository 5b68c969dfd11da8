#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the small Hugging Face directories that tests/unit/test_model.c reads.

usage: hf_models.py OUT_DIR        (needs torch, transformers, tokenizers)

Random models of three families, one in each stored precision, with a
tokenizer of 272 tokens, and beside each directory NAME a file NAME.json: the
logits of one prompt, computed in float32 from the stored values.  One more
directory holds a LoRA adapter in the layout of PEFT, for the Llama model.
Nothing is taken from a published model.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (AutoModelForCausalLM, GenerationConfig, LlamaConfig,
                          LlamaForCausalLM, LlamaForSequenceClassification,
                          PreTrainedTokenizerFast, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

VOCAB = 272
PROMPT = [1, 17, 42, 99, 250, 7, 8, 130, 3, 64]
CHAT = ("{% for message in messages %}<|{{ message['role'] }}|>\n"
        "{{ message['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}")


def tokenizer(bos):
    """Byte-level BPE: 256 bytes, a few merges, three specials at the end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(letters)}
    merges = [("t", "h"), ("th", "e"), ("i", "n"), ("a", "n"), ("e", "r"),
              ("Ġ", "the"), ("o", "n"), ("r", "e"), ("Ġ", "a"), ("an", "d")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(["<s>", "</s>", "<pad>"])
    if bos:
        tok.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tok.token_to_id("<s>"))])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok, bos_token="<s>" if bos else None,
        eos_token="</s>", pad_token="<pad>", model_max_length=64)
    fast.chat_template = CHAT
    return fast


def common(**more):
    return dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48,
                num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=64,
                initializer_range=0.3, bos_token_id=266, eos_token_id=267,
                pad_token_id=268, **more)


def reference(folder, dtype):
    """Logits [token, vocab] of PROMPT, in float32 whatever is stored."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT])).logits[0]
    return {"dtype": dtype, "prompt": PROMPT,
            "logits": [round(x, 7) for x in logits[-1].tolist()],
            "first": [round(x, 7) for x in logits[0].tolist()]}


def perturb(model):
    """Norms and biases start as ones and zeros, which would hide mistakes."""
    for name, param in model.named_parameters():
        if param.dim() == 1:
            param.data += 0.3 * torch.randn_like(param)


def write(out, name, model, dtype, bos, generation=None, **save):
    folder = os.path.join(out, name)
    perturb(model)
    model = model.to(dtype)
    if generation:
        model.generation_config = GenerationConfig(**generation)
    model.save_pretrained(folder, safe_serialization=True, **save)
    tokenizer(bos).save_pretrained(folder)
    with open(folder + ".json", "w", encoding="utf-8") as file:
        json.dump(reference(folder, str(dtype).split(".")[1]), file)


def adapter(out, base):
    """A rank-4 adapter of q_proj and v_proj as PEFT stores it, and the logits
    of the base with it: W + (alpha / r) B A."""
    folder = os.path.join(out, "llama-lora")
    os.makedirs(folder, exist_ok=True)
    rank, alpha = 4, 8
    model = AutoModelForCausalLM.from_pretrained(os.path.join(out, base),
                                                 dtype=torch.float32)
    tensors = {}
    for name, module in model.named_modules():
        if name.split(".")[-1] in ("q_proj", "v_proj"):
            a = 0.2 * torch.randn(rank, module.in_features)
            b = 0.2 * torch.randn(module.out_features, rank)
            prefix = "base_model.model." + name
            tensors[prefix + ".lora_A.weight"] = a
            tensors[prefix + ".lora_B.weight"] = b
            module.weight.data += (alpha / rank) * (b @ a)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"),
              metadata={"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank,
              "lora_alpha": alpha, "lora_dropout": 0.05, "bias": "none",
              "base_model_name_or_path": "../" + base, "fan_in_fan_out": False,
              "target_modules": ["v_proj", "q_proj"], "modules_to_save": None,
              "use_rslora": False, "use_dora": False, "rank_pattern": {},
              "alpha_pattern": {}, "layers_to_transform": None,
              "init_lora_weights": True, "inference_mode": True}
    with open(os.path.join(folder, "adapter_config.json"), "w",
              encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT])).logits[0]
    with open(folder + ".json", "w", encoding="utf-8") as file:
        json.dump({"prompt": PROMPT,
                   "logits": [round(x, 7) for x in logits[-1].tolist()]}, file)


def reward(out):
    folder = os.path.join(out, "llama-reward")
    config = LlamaConfig(num_labels=1, **common())
    config.num_hidden_layers = 1
    model = LlamaForSequenceClassification(config)
    perturb(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer(True).save_pretrained(folder)
    model = LlamaForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32)
    model.eval()
    with torch.no_grad():
        score = model(torch.tensor([PROMPT])).logits[0, 0].item()
    with open(folder + ".json", "w", encoding="utf-8") as file:
        json.dump({"prompt": PROMPT, "score": round(score, 7)}, file)


def main(out):
    torch.set_num_threads(1)
    torch.manual_seed(20)
    os.makedirs(out, exist_ok=True)
    write(out, "llama-f32", LlamaForCausalLM(LlamaConfig(**common())),
          torch.float32, True, max_shard_size="60KB",
          generation={"eos_token_id": [267, 265], "bos_token_id": 266,
                      "temperature": 0.7, "do_sample": True})
    write(out, "qwen2-f16",
          Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=True, **common())),
          torch.float16, False)
    write(out, "qwen3-bf16",
          Qwen3ForCausalLM(Qwen3Config(head_dim=16, **common())),
          torch.bfloat16, False)
    adapter(out, "llama-f32")
    reward(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
