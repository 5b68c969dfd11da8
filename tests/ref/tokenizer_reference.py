#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write tests/ref/data/tokenizer: small tokenizers and what they make of texts.

usage: tokenizer_reference.py OUT_DIR
wants: tokenizers, jinja2, transformers

Trains a tokenizer in the shape of each published family on a text of many
scripts, and records for every case of cases() the ids that the `tokenizers`
library gives, specials parsed and not, and the texts it decodes.  Renders chat
templates of the published families, written anew with the same constructs, by
transformers.
"""
import json
import pathlib
import random
import sys

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,
                        normalizers, pre_tokenizers, processors, trainers)

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

SCRIPTS = """The quick brown fox jumps over the lazy dog; it's what they'd say, isn't it?
Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Straße, Fuß.
Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis.
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío, ¿añoraba?
Съешь же ещё этих мягких французских булок, да выпей чаю.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Γαζέες καὶ μυρτιὲς δὲν θὰ βρῶ πιά.
いろはにほへと ちりぬるを わかよたれそ つねならむ。東京都は日本の首都です。
我能吞下玻璃而不伤身体。人工智能正在改变世界，机器学习模型越来越大。
나는 유리를 먹을 수 있어요. 그래도 아프지 않아요. 한국어 문장입니다.
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق
דג סקרן שט בים מאוכזב ולפתע מצא לו חברה איך הקליטה
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले
นายสังฆภัณฑ์ เฮงพิทักษ์ฝั่ง ผู้เฒ่าซึ่งมีอาชีพเป็นฅนขายฃวด
Đất nước Việt Nam: tôi có thể ăn thủy tinh mà không hại gì.
int main(void) { return printf("%d\\n", x[i] += 0x1F) ? 0 : -1; } // comment
def f(a, b=None):\n    return {k: v for k, v in zip(a, b) if v != "x"}\n
1234567890 3.14159 2,718,281 1e-10 0xdeadbeef 2024-07-26T12:34:56Z
""".replace("\\n", "\n")

CASES = {
    "ascii": "Hello, world! It's 9 o'clock; they'LL say we've DONE it.",
    "spaces": "  two  three   tab\tnl\n\n\ncrlf\r\n \r\n  end  ",
    "space only": " ",
    "newlines": "\n \n\n  \n\t\n",
    "digits": "1 12 123 1234 12345678901234567890 3.14159265358979 ½ ² ٣٤٥ ४५ Ⅷ",
    "combining": "e\u0301 n\u0303 o\u0308\u0323 \u1e9b\u0323 A\u030a \u212b \ufb01 \u1100\u1161\u11a8",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ❤️ 1️⃣ 🤷🏾‍♀️",
    "cjk": "東京都は日本の首都です。我能吞下玻璃而不伤身体。한국어 문장입니다. 𠜎𠜱𡿺",
    "rtl": "\u200fنص حكيم\u200f שלום עולם \u202babc\u202c ١٢٣",
    "indic": "क्षत्रिय ज्ञान สวัสดีครับ မြန်မာ ಕನ್ನಡ ភាសា",
    "controls": "a\x01b\x02\x1b[0m\x7f\u0085\u00a0\u2028\u2029\u200b\ufeff\u00adz\ufffd\u180e\u3000.",
    "rare": "ᚠᛇᚻ ⵣⴰⵣ ꙮ 𐍈 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ﷽ Ꜳ ǅ İstanbul ſ's K's ß",
    "code": "for (int i = 0; i < n; ++i) {\n\t\tx[i] += y[i]*2.5e-3; // ok\n\t}\n\n    return x;\n",
    "json": '{"key": ["value", 1.5, null, true], "näme": "\\u00e9\\n"}',
    "specials": "<s>Hello</s> <|im_start|>user\nhi<|im_end|>\n<|begin_of_text|>x<|eot_id|>",
    "special halves": "<|im_start |im_end|> <|im_<|im_end|>end|> </s </ s><s<s>>",
    "added": "a <tool_call> b <TOOL_CALL>c  <think>  d</think>e xword word wordy word's <pad>",
    "added spaces": "a  <lpad>  b\n<rpad> \n c<lpad><rpad><lpad> d",
    "metaspace": "▁▁a ▁ b▁c ▁",
    "repeats": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 2,
    "punctuation": "?!?!...---___***((([[[{{{'''\"\"\"`~@#$%^&|\\/<>，。！？「」—…",
    "empty": "",
}


def texts():
    """The cases, and lines put together at random."""
    out = dict(CASES)
    rng = random.Random(7)
    pool = list(SCRIPTS) + list("".join(CASES.values())) + [" "] * 40
    for i in range(12):
        out[f"random {i}"] = "".join(rng.choice(pool) for _ in range(120))
    out["all"] = SCRIPTS
    return out


def llama2():
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True,
                             unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"),
                                         normalizers.Replace(" ", "▁")])
    t.pre_tokenizer = pre_tokenizers.Metaspace()    # for training alone
    t.normalizer = normalizers.Replace(" ", "▁")
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    t.train_from_iterator(SCRIPTS.split("\n") * 4, trainers.BpeTrainer(
        vocab_size=1100, special_tokens=specials, min_frequency=4,
        limit_alphabet=300, show_progress=False))
    raw = json.loads(t.to_str())
    raw["added_tokens"] = [a for a in raw["added_tokens"] if a["id"] < 3]
    raw["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    raw["pre_tokenizer"] = None
    raw["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    # as older files have them: "a b" in one string
    raw["model"]["merges"] = [" ".join(m) if isinstance(m, list) else m
                              for m in raw["model"]["merges"]]
    t = Tokenizer.from_str(json.dumps(raw))
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return t, raw["model"]["merges"]


def byte_level(split, specials, added, normalizer=None, ignore_merges=False,
               post=None, size=1000):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.normalizer = normalizer
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(SCRIPTS.split("\n"), trainers.BpeTrainer(
        vocab_size=size, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens([AddedToken(s, normalized=False) for s in specials])
    t.add_tokens(added)
    t.post_processor = post(t) if post else processors.ByteLevel(
        trim_offsets=False)
    return t


def llama3():
    def post(t):
        bos = "<|begin_of_text|>"
        return processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{bos} $A", pair=f"{bos} $A {bos} $B",
                special_tokens=[(bos, t.token_to_id(bos))])])
    return byte_level(
        LLAMA3, ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                 "<|end_header_id|>", "<|eot_id|>"], [], ignore_merges=True,
        post=post)


def qwen2():
    return byte_level(
        QWEN2, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        [AddedToken("<tool_call>", normalized=False),
         AddedToken("<think>", normalized=False),
         AddedToken("</think>", normalized=False)],
        normalizer=normalizers.NFC())


def mistral():
    """Metaspace, prepended at the first word only; pairs for merges."""
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True,
                             unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first",
                                               split=False)
    t.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    specials = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"] + [
        f"<0x{i:02X}>" for i in range(256)]
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    t.train_from_iterator(SCRIPTS.split("\n") * 4, trainers.BpeTrainer(
        vocab_size=900, special_tokens=specials, min_frequency=4,
        limit_alphabet=200, show_progress=False))
    raw = json.loads(t.to_str())
    raw["added_tokens"] = [a for a in raw["added_tokens"] if a["id"] < 5]
    raw["pre_tokenizer"]["split"] = False
    t = Tokenizer.from_str(json.dumps(raw))
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B",
        special_tokens=[("<s>", 1), ("</s>", 2)])
    return t


def gpt2():
    """ByteLevel with its own words and a prefix space; added tokens of every
    sort; Metaspace-free."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(),
                                         normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(SCRIPTS.lower().split("\n"), trainers.BpeTrainer(
        vocab_size=700, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens(["<|endoftext|>", "</s>"])
    t.add_tokens([AddedToken("word", single_word=True, normalized=True),
                  AddedToken("<tool_call>", normalized=True),
                  AddedToken("<lpad>", lstrip=True, normalized=False),
                  AddedToken("<rpad>", rstrip=True, normalized=False),
                  AddedToken("<|im_", normalized=False),
                  AddedToken("<|im_end", normalized=False)])
    return t


def splits():
    """The other pre-tokenizers, one after the other, and an unk token."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    t.normalizer = normalizers.Sequence([
        normalizers.NFD(), normalizers.Replace(Regex(r"\p{Mn}+"), ""),
        normalizers.Replace("ß", "ss"), normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split(Regex(r"[aeiou]"), "merged_with_previous"),
        pre_tokenizers.Split("<", "merged_with_next"),
        pre_tokenizers.Split(Regex(r"\p{Lu}"), "contiguous"),
        pre_tokenizers.Split(Regex(r"[\p{L}\p{N}<>|_/-]+"), "removed",
                             invert=True),
        pre_tokenizers.Punctuation("isolated"),
        pre_tokenizers.Whitespace()])
    t.train_from_iterator(SCRIPTS.split("\n"), trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>"], limit_alphabet=150,
        show_progress=False))
    return t


def decode_cases(t, ids_list):
    """Id lists to decode: the encodings, parts of them, and noise."""
    rng = random.Random(3)
    size = t.get_vocab_size()
    out = [ids for ids in ids_list if ids]
    out += [ids[1:-1] for ids in ids_list[:6] if len(ids) > 3]
    out += [[rng.randrange(size) for _ in range(40)] for _ in range(6)]
    out += [[rng.randrange(min(size, 262)) for _ in range(40)]
            for _ in range(6)]
    return out


def record(t):
    cases = []
    for name, text in texts().items():
        t.encode_special_tokens = False
        parsed = t.encode(text, add_special_tokens=False).ids
        full = t.encode(text, add_special_tokens=True).ids
        t.encode_special_tokens = True
        plain = t.encode(text, add_special_tokens=False).ids
        case = {"name": name, "text": text, "ids": plain}
        if parsed != plain:
            case["parsed"] = parsed
        if full != parsed:
            case["full"] = full
        cases.append(case)
    t.encode_special_tokens = False
    decodes = [{"ids": ids, "text": t.decode(ids, skip_special_tokens=True),
                "all": t.decode(ids, skip_special_tokens=False)}
               for ids in decode_cases(t, [c.get("parsed", c["ids"])
                                           for c in cases])]
    # JSON here has no NUL
    return {"cases": cases, "decodes": [d for d in decodes
                                        if "\0" not in d["all"]]}


def main(out):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    made, merges = llama2()
    all_of = {"llama2": made, "llama3": llama3(), "qwen2": qwen2(),
              "mistral": mistral(), "gpt2": gpt2(), "splits": splits()}
    for name, t in all_of.items():
        raw = json.loads(t.to_str())
        if name == "llama2":
            raw["model"]["merges"] = merges
        text = json.dumps(raw, ensure_ascii=False)
        (out / f"{name}.json").write_text(text + "\n")
        again = Tokenizer.from_str(text)
        (out / f"{name}.cases.json").write_text(json.dumps(
            record(again), ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
