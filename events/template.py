"""Placeholders in a trigger's texts and bodies: `functions.template` with this unit's documents.

`{$.x}` starts at the default document (the event's data in a request, the answer in a result);
`{object.key}`, `{event.subject}`, `{answer.predictions[0]}`, `{data.x}` start at a named one.
"""

from functions.template import Body, Documents, Language, TemplateError, Text, to_text

from .errors import Refused

__all__ = [
    "ROOTS",
    "Body",
    "Documents",
    "TemplateError",
    "Text",
    "Unresolved",
    "compile_body",
    "compile_text",
    "to_text",
]

ROOTS = ("event", "object", "data", "answer")


class Unresolved(Refused):
    """A placeholder found nothing in this event or answer: no later attempt would."""


_LANGUAGE = Language(ROOTS, Unresolved, "{object.key}")
compile_text = _LANGUAGE.text
compile_body = _LANGUAGE.body
