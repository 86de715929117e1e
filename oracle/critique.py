"""Feedback with a score on a line of its own, written well and badly. `{m}` is how the line opens, `{v}` the score.

`{hi}` and `{lo}` are the ends of the scale: the other verdicts that a careless reader would take.
"""

import random

from oracle.reply import Reply

FEEDBACK = (
    "Names the lantern, but says too little about the place. Cut the last line.",
    "What is incorrect here is not correct elsewhere either.\n\nKeep to the rules: 3 items, 70 words.",
    "1. Say where.\n2. Say when.\n10. Stop.",
)

READABLE = {
    "words after": "{p}\n{m}: {v}\n\nI hope this helps the writer!",
    "bold": "{p}\n**{m}: {v}**",
    "bold name": "{p}\n**{m}:** {v}",
    "bold score": "{p}\n{m}: **{v}**/{hi}",
    "underlined": "{p}\n__{m}:__ {v}",
    "a heading": "{p}\n### {m}: {v}",
    "a bullet": "{p}\n- {m}: {v}",
    "out of": "{p}\n{m}: {v}/{hi}",
    "out of, in words": "{p}\n{m}: {v} out of {hi}",
    "out of, in brackets": "{p}\n{m}: {v} (out of {hi})",
    "spaces": "{p}\n{m}  :   {v} / {hi}.",
    "capitals": "{p}\n{M}: {v}",
    "next line": "{p}\n{m}:\n{v}",
    "next but one": "{p}\n**{m}:**\n\n**{v}**\n",
    "carriage returns": "{p}\r\n{m}: {v}\r\n",
    "fence": "{p}\n```\n{m}: {v}\n```",
    "fence after": "{p}\n{m}: ```{v}```",
    "code": "{p}\n`{m}: {v}`",
    "no-break spaces": "{p}\n{m with no-break spaces}:\u00a0{v}",
    "narrow space": "{p}\n{m}:\u202f{v}\u2009/\u2009{hi}",
    "zero-width space": "{p}\n{m}:\u200b {v}",
    "byte order mark": "\ufeff{p}\n{m}: \ufeff{v}",
    "wide colon": "{p}\n{m}：{v}",
    "wide digits": "{p}\n{m}: {wide}",
    "equals sign": "{p}\n{m} = {v}",
    "two decimals": "{p}\n{m}: {v2}",
    "in brackets": "{p}\n{m}: [[{v}]]",
    "in tags": "{p}\n{m}: <score>{v}</score>",
    "in a box": "{p}\n{m}: $\\boxed{{v}}$",
    "in angle brackets": "{p}\n{m}: <{v}>",
    "a word of praise": "{p}\n{m}: {v}. Well done.",
    "points": "{p}\n{m}: {v} points",
    "a quoted verdict first": 'The response says "{m}: {hi}" of itself.\n{p}\n{m}: {v}',
    "a draft first": "{m}: {lo} at first sight, but no.\n{p}\n{m}: {v}",
    "a block of the response": "> {m}: {lo}\n> ### Feedback\n{p}\n\n{m}: {v}",
    "thinking": "<think>{p}\n{m}: {lo}? {m}: {hi}?</think>\n{p}\n{m}: {v}",
    "end of thinking": "Let me see. {m}: {hi}\n</think>\n\n{p}\n{m}: {v}",
    "chat marker": "{p}\n{m}: {v}<|im_end|>",
    "end of text": "{p}\n{m}: {v}</s>",
    "another turn": "{p}\n{m}: {v}<|eot_id|><|start_header_id|>assistant",
    "JSON": '{"feedback": "Fine.", "{m}": {v}}',
    "JSON with a trailing comma": '```json\n{"feedback": "Fine [[{hi}]].", "{under}": {v},\n}\n```',
    "JSON, score as text": '{"{m}": "{v}", "feedback": "Fine."}',
    "nested braces": '{"feedback": {"good": {"a": 1}}, "{under}": {v}}',
    "score first": "{m}: {v}\n\n{p}",
}
UNREADABLE = {
    "nothing": "",
    "white space": " \n\n ",
    "feedback alone": "{p}",
    "no number": "{p}\n{m}:",
    "not applicable": "{p}\n{m}: N/A",
    "words": "{p}\n{m}: good",
    "above the scale": "{p}\n{m}: 11",
    "far above the scale": "{p}\n{m}: 100",
    "below the scale": "{p}\n{m}: 0",
    "a fraction below the scale": "{p}\n{m}: 0.{d}",
    "negative": "{p}\n{m}: -{v}",
    "a span": "{p}\n{m}: {lo}-{hi}",
    "a span in words": "{p}\n{m}: between {lo} and {hi}",
    "one or the other": "{p}\n{m}: {lo} or {hi}",
    "one, then the other": "{p}\n{m}: {lo}, no, {hi}",
    "corrected in brackets": "{p}\n{m}: {hi} (or rather {lo})",
    "an arrow": "{p}\n{m}: {lo} -> {hi}",
    "digits apart": "{p}\n{m}: 1 0",
    "digits apart unseen": "{p}\n{m}: 1\u200b0",
    "comma for a point": "{p}\n{m}: 1,0",
    "another scale": "{p}\n{m}: 4/5",
    "per cent": "{p}\n{m}: 7%",
    "an exponent": "{p}\n{m}: 1e1",
    "a version": "{p}\n{m}: 7.5.2",
    "a raised digit": "{p}\n{m}: 1\u2070",
    "a half sign": "{p}\n{m}: 1½",
    "less than": "{p}\n{m}: <{hi}",
    "verdict withdrawn": "{p}\n{m}: {hi}\nOn reflection, no.\n{m}: none",
    "only in thinking": "<think>{m}: {hi}</think>{p}",
    "thinking without an end": "<think>{p}\n{m}: {hi}",
    "other name": "{p}\nTone: {hi}",
    "code": "{p}\n{m}: __import__('os').getpid()",
}
TRUNCATED = {
    "cut in the feedback": "{p}",
    "cut at the line": "{p}\n{m}:",
    "cut in the number": "{p}\n{m}: 1",
    "cut at the point": "{p}\n{m}: {lo}.",
    "cut after bold": "{p}\n**{m}: 1",
    "cut in thinking": "<think>{m}: {hi}, or",
    "cut before anything": "",
}
REFUSED = {
    "in words": "I'm sorry, but I can't help with that.",
    "unable": "I cannot provide an evaluation of this content.",
    "as an AI": "As an AI language model, I am not able to grade this.",
    "with a curly apostrophe": "I’m sorry, I can’t assist with that request.",
}
FILTERED = {"after the verdict": "{p}\n{m}: {hi}", "before it": ""}


def fill(template: str, name: str, value: float, chance: random.Random, low: float, high: float) -> str:
    """The reply's text. A whole number is written without a point."""
    places = {
        "{p}": chance.choice(FEEDBACK),
        "{m with no-break spaces}": name.replace(" ", "\u00a0"),
        "{M}": name.upper(),
        "{m}": name,
        "{under}": name.lower().replace(" ", "_"),
        "{wide}": f"{value:g}".translate(WIDE),
        "{v2}": f"{value:.2f}",
        "{v}": f"{value:g}",
        "{hi}": f"{high:g}",
        "{lo}": f"{low:g}",
        "{d}": str(chance.randrange(1, 10)),
    }
    for place, text in places.items():
        template = template.replace(place, text)
    return template


WIDE = str.maketrans("0123456789.", "０１２３４５６７８９．")


def clean(name: str, value: float, chance: random.Random, low: float, high: float) -> Reply:
    return Reply([fill("{p}\n{m}: {v}", name, value, chance, low, high)])


def badly(
    kind: str, name: str, value: float, chance: random.Random, low: float, high: float
) -> tuple[str, bool, Reply]:
    """A reply of one kind, malformed, truncated or refused: what it is, whether it can be read, and itself."""

    def text(templates: dict[str, str]) -> tuple[str, str]:
        form = chance.choice(list(templates))
        return form, fill(templates[form], name, value, chance, low, high)

    if kind == "truncated":
        form, said = text(TRUNCATED)
        return form, False, Reply([said], "length")
    if kind == "refused":
        if chance.random() < 0.3:
            form, said = text(FILTERED)
            return f"content filter {form}", False, Reply([said], "content_filter")
        if chance.random() < 0.3:
            return "refusal field", False, Reply([None], refusal="I can't grade this.")
        form, said = text(REFUSED)
        return f"refused {form}", False, Reply([said])
    readable = chance.random() < 0.5
    form, said = text(READABLE if readable else UNREADABLE)
    return form, readable, Reply([said])
