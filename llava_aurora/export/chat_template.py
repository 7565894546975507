"""LLaVA's conversations as a Jinja chat template, which is what serving engines fill in.

The filled template is what LLaVA's `Conversation.get_prompt` writes, with the begin-of-sequence token before it and
the images of a turn before its words, a line each.
"""

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, SeparatorStyle, conv_templates

from llava_aurora.errors import AuroraError

# Messages as OpenAI's interface has them: `content` is a text, or a list of parts of type text, image or image_url.
_TEMPLATE = """\
{%- macro written(content) -%}
{%- if content is string -%}{{- content -}}
{%- else -%}
{%- for part in content if part.type in ('image', 'image_url') -%}{{- IMAGE + '\\n' -}}{%- endfor -%}
{%- for part in content if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{{- bos_token + AFTER_BOS -}}
{%- if messages[0].role == 'system' -%}{{- written(messages[0].content) -}}{%- else -%}{{- SYSTEM -}}{%- endif -%}
{{- AFTER_USER -}}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{{- USER + ': ' + written(message.content) + AFTER_USER -}}
{%- elif message.role == 'assistant' -%}{{- ASSISTANT + ': ' + written(message.content) + AFTER_ASSISTANT -}}
{%- elif not (loop.first and message.role == 'system') -%}
{{- raise_exception('a message is from user or assistant, the first one also from system, not ' + message.role) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ASSISTANT + ':' -}}{%- endif -%}
"""


def chat_template(conversation: str, *, after_bos: str = "") -> str:
    """The template of one of LLaVA's conversations.

    Args:
        conversation: its name in LLaVA's `conv_templates`, such as vicuna_v1.
        after_bos: what the tokenizer needs after the begin-of-sequence token to read on as at the beginning of a text.
    Raises AuroraError if there is none of that name, or it is not of two speakers with a separator after each.
    """
    template: Conversation | None = conv_templates.get(conversation)
    if template is None or template.sep_style is not SeparatorStyle.TWO or template.messages:
        usable = [name for name, known in conv_templates.items() if known.sep_style is SeparatorStyle.TWO]
        raise AuroraError(f"conversation {conversation!r} cannot be exported; available: {', '.join(sorted(usable))}")
    user, assistant = template.roles
    values = {
        "AFTER_BOS": after_bos,
        "IMAGE": DEFAULT_IMAGE_TOKEN,
        "SYSTEM": template.system,
        "USER": user,
        "ASSISTANT": assistant,
        "AFTER_USER": template.sep,
        "AFTER_ASSISTANT": template.sep2,
    }
    # One statement for each, so that the template can be read and changed where it was exported to.
    return "".join(f"{{%- set {name} = {_quoted(value)} -%}}\n" for name, value in values.items()) + _TEMPLATE


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
