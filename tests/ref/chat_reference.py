#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write tests/ref/data/tokenizer/chat.json: chat templates and what they render.

usage: chat_reference.py OUT_DIR          (after tokenizer_reference.py)
wants: tokenizers, jinja2, transformers

The templates are in the manner of the published families: the same constructs,
written anew.  transformers' apply_chat_template renders each of them with each
conversation; where it raises, the case says so.  With the tokenizers of the
same directory it also gives ids and, for templates with generation blocks, the
mask of the assistant's tokens.
"""
import datetime
import json
import pathlib
import sys

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


TEMPLATES = {
    "llama2": """{% if messages[0]['role'] == 'system' %}
    {% set turns = messages[1:] %}
    {% set system = messages[0]['content'] %}
{% else %}
    {% set turns = messages %}
    {% set system = false %}
{% endif %}
{% for m in turns %}
{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if loop.index0 == 0 and system != false %}
{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m['content'] %}
{% else %}
{% set content = m['content'] %}
{% endif %}
{% if m['role'] == 'user' %}
{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' -}}
{% elif m['role'] == 'assistant' %}
{{- ' ' + content.strip() + ' ' + eos_token -}}
{% endif %}
{% endfor %}""",
    "llama3": "{% set loop_messages = messages %}{% for message in "
    "loop_messages %}{% set content = '<|start_header_id|>' + message['role'] "
    "+ '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif "
    "%}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "llama31": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}

{#- the system message first #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one tool call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral1": "{{ bos_token }}{% for message in messages %}{% if "
    "(message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ "
    "raise_exception('Conversation roles must alternate') }}{% endif %}{% if "
    "message['role'] == 'user' %}{{ '[INST] ' + message['content'] + "
    "' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ "
    "message['content'] + eos_token + ' ' }}{% else %}{{ "
    "raise_exception('Only user and assistant roles are supported!') }}"
    "{% endif %}{% endfor %}",
    "mistral3": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("ids have 9 characters") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles, system and tools") }}
    {%- endif %}
{%- endfor %}
""",
    "qwen2": "{% for message in messages %}{% if loop.first and "
    "messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a "
    "helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}",
    "qwen25": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "qwen3": """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "macros": """{%- macro turn(role, text, close=true) -%}
<|{{ role | upper }}|>{{ text | default('(none)', true) }}{% if close %}</{{ role[0] }}>
{% endif %}
{%- endmacro -%}
{%- set labels = {'user': 'human', "assistant": 'bot'} -%}
{%- for m in messages if m.content is not none -%}
    {%- if m.role not in labels -%}{%- continue -%}{%- endif -%}
    {{- turn(labels[m.role], m['content'], close=not loop.last) -}}
    {%- if loop.index > 4 -%}{% break %}{%- endif -%}
{%- else -%}
nothing
{%- endfor %}
{% set note %}{{ messages | length }} of {{ [1, 2.5, 'x', none, true] | join('/') }}{% endset %}
[{{ note | trim | replace('of', 'out of') }}]{{ {'a': [1, "b'c"], 'd': none} }}
{{- messages | map(attribute='role') | list }}{{ "%" ~ (7 // 2) ~ -7 % 3 ~ 2 ** 3 ~ 7 / 2 }}
{{- 'yes' if messages[-1].role == 'user' and 1 < 2 <= 2 else 'no' }}{{ missing }}{{ messages[99] is defined }}
{{- ('a,b,c'.split(',') | last ~ "Zoë"[::-1] ~ 'abc'[-2:] ~ "x y".title()) }}{{ range(3) | list + [9] }}""",
    "generation": """{{- bos_token }}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
}

CALL = {"id": "abc123def", "type": "function",
        "function": {"name": "weather",
                     "arguments": {"city": "Zürich", "days": 3, "ok": True}}}
CONVERSATIONS = {
    "one": [{"role": "user", "content": "Hello!"}],
    "system": [{"role": "system", "content": " Be brief.\n"},
               {"role": "user", "content": "  What is 2 + 2?\n"}],
    "turns": [{"role": "system", "content": "Du bist nett."},
              {"role": "user", "content": "Grüß Gott"},
              {"role": "assistant", "content": " Hallo, wie geht's? "},
              {"role": "user", "content": "Gut.\n\nUnd 你好 👩‍👩‍👧?"}],
    "answered": [{"role": "user", "content": "Hi"},
                 {"role": "assistant", "content": "Hello \"you\""},
                 {"role": "user", "content": "Bye"},
                 {"role": "assistant", "content": "So long\n"}],
    "thinking": [{"role": "user", "content": "1+1?"},
                 {"role": "assistant",
                  "content": "<think>\nOne and one.\n</think>\n\n2"},
                 {"role": "user", "content": "And 2+2?"},
                 {"role": "assistant",
                  "content": "<think>\nTwo, twice.\n</think>\n\n4"}],
    "tools": [{"role": "user", "content": "Weather?"},
              {"role": "assistant", "content": "", "tool_calls": [CALL]},
              {"role": "tool", "content": "{\"t\": 21.5}",
               "tool_call_id": "abc123def"},
              {"role": "assistant", "content": "21.5 degrees."},
              {"role": "user", "content": "Thanks"}],
    "twice": [{"role": "user", "content": "a"},
              {"role": "user", "content": "b"}],
    "empty": [{"role": "user", "content": ""},
              {"role": "assistant", "content": ""}],
}
TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "The \"weather\" of a city.",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer", "minimum": 1},
        "scale": {"type": "number", "default": 0.5, "enum": []}},
        "required": ["city"]}}}]

# family: tokenizer of this directory, bos, eos
FAMILIES = {"llama2": ("llama2", "<s>", "</s>"),
            "llama3": ("llama3", "<|begin_of_text|>", "<|eot_id|>"),
            "llama31": ("llama3", "<|begin_of_text|>", "<|eot_id|>"),
            "mistral1": ("mistral", "<s>", "</s>"),
            "mistral3": ("mistral", "<s>", "</s>"),
            "zephyr": ("llama2", "<s>", "</s>")}


def main(out):
    out = pathlib.Path(out)
    chat_template_utils.datetime = FixedDate
    chat_template_utils._compile_jinja_template.cache_clear()
    cases = []
    for name, template in TEMPLATES.items():
        family, bos, eos = FAMILIES.get(
            name, ("qwen2", "<|endoftext|>", "<|im_end|>"))
        raw = Tokenizer.from_file(str(out / f"{family}.json"))
        size = raw.get_vocab_size()
        tok = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=bos,
                                      eos_token=eos)
        assert len(tok) == size
        for key, messages in CONVERSATIONS.items():
            for prompt in (False, True):
                options = {"add_generation_prompt": prompt}
                if key == "tools" and prompt:
                    options["tools"] = TOOLS
                if key == "thinking" and prompt:
                    options["enable_thinking"] = False
                case = {"template": name, "tokenizer": family, "bos": bos,
                        "eos": eos, "conversation": key, "options": options}
                try:
                    case["text"] = tok.apply_chat_template(
                        messages, chat_template=template, tokenize=False,
                        **options)
                    made = tok.apply_chat_template(
                        messages, chat_template=template, tokenize=True,
                        return_dict=True, return_assistant_tokens_mask=(
                            "generation" == name), **options)
                    case["ids"] = made["input_ids"]
                    if name == "generation":
                        case["mask"] = made["assistant_masks"]
                except Exception as error:      # a refusal is a result too
                    case["error"] = type(error).__name__ + ": " + str(error)
                cases.append(case)
    (out / "chat.json").write_text(json.dumps(
        {"templates": TEMPLATES, "conversations": CONVERSATIONS,
         "cases": cases}, ensure_ascii=False, indent=0) + "\n")
    bad = [c for c in cases if "error" in c]
    print(len(cases), "cases,", len(bad), "refused:")
    for c in bad:
        print(c["template"], c["conversation"], c["error"][:150])


if __name__ == "__main__":
    main(sys.argv[1])
