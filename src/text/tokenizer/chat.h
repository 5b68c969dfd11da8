/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file chat.h
 * Conversations to text and token ids, by the model's own chat template.
 *
 * The template (Jinja) is the tokenizer's "chat_template".  It renders with
 * the variables that transformers gives it: messages, add_generation_prompt,
 * tools, bos_token, eos_token, pad_token and those of the options.
 *
 * Special tokens count only where the template's own text spells them.  Every
 * byte of the rendered text carries its origin, and a special token that has
 * a single byte from a message (content, role, name, tools, any field) stays
 * ordinary text.  So the ids are those of the library except where a message
 * spells a special token, or where its text and its neighbours' make one up.
 *
 * Threads: safe; nothing is shared but the immutable tokenizer.
 */
#ifndef FM_TEXT_TOKENIZER_CHAT_H
#define FM_TEXT_TOKENIZER_CHAT_H

#include "text/tokenizer/tokenizer.h"

/** What strftime_now() formats unless told: 2024-07-26 00:00:00 UTC.  A date
 *  of today would make equal work differ from day to day. */
#define FM_CHAT_DATE ((int64_t)1721952000)

/** Zero-initialise: the defaults. */
typedef struct fm_chat_options {
    bool add_generation_prompt; /**< end where the assistant's turn begins */
    const fm_json_t *tools;     /**< array, or NULL */
    /** Object of further variables, such as {"enable_thinking": false}. */
    const fm_json_t *variables;
    int64_t date_unix_s; /**< for strftime_now(); 0: FM_CHAT_DATE */
} fm_chat_options_t;

/** Whether the tokenizer came with a chat template. */
bool fm_chat_available(const fm_tokenizer_t *tokenizer);

/**
 * Append the rendered text of @p messages.
 * @param messages  array of {"role": text, "content": text or null or parts,
 *                  …}; further fields are the template's business.
 * @param options   NULL for defaults.
 * @retval FM_ERR_UNSUPPORTED  the tokenizer has no chat template.
 * @retval FM_ERR_INVALID      messages of another shape, a template that
 *                             refuses them (raise_exception) or fails: with
 *                             line:column.
 * @retval FM_ERR_LIMIT        steps, depth or output of the template.
 */
FM_MUST_USE fm_status_t fm_chat_text(const fm_tokenizer_t *tokenizer,
                                     const fm_json_t *messages,
                                     const fm_chat_options_t *options,
                                     fm_buf_t *text, fm_error_t *err);

/**
 * Append the token ids of @p messages.  No bos or eos but the template's.
 * @param assistant  NULL, or gets one byte a token appended: 1 where the token
 *                   belongs to an assistant's turn (loss is taken there).  A
 *                   template with {% generation %} blocks says so itself.
 *                   Else a turn begins where the rendering of the messages
 *                   before it, with a generation prompt, ends, and ends where
 *                   the rendering up to it ends; where a template renders
 *                   earlier turns in another way once later ones follow, it
 *                   is the message's own text and what follows it up to its
 *                   first special token, included.
 */
FM_MUST_USE fm_status_t fm_chat_render(const fm_tokenizer_t *tokenizer,
                                       const fm_json_t *messages,
                                       const fm_chat_options_t *options,
                                       fm_tokens_t *tokens, fm_buf_t *assistant,
                                       fm_error_t *err);

#endif
