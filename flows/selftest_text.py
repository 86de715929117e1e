"""A self-test as people read it: a line for each judge, then everything that is wrong."""

from typing import Any

SHOWN = 20
"""Wrong labels in the terminal; --json has them all."""


def selftest_text(result: dict[str, Any]) -> str:
    lines = [
        f"{'judge':<20}{'judgements':>11}{'recoverable':>12}{'recovered':>10}{'unjudged':>9}{'WRONG':>7}"
        f"{'pairs':>8}{'better':>8}{'equal':>7}{'noise':>7}{'wrong':>7}{'seconds':>9}"
    ]
    for name, one in result["judges"].items():
        pairs = one["pairs"]
        lines.append(
            f"{name:<20}{one['judgements']:>11}{one['recoverable']:>12}{one['recovered']:>10}"
            f"{sum(one['unjudged'].values()):>9}{one['wrong']:>7}{pairs['made']:>8}{pairs['better']:>8}"
            f"{pairs['equal']:>7}{pairs['noise']:>7}{pairs['wrong']:>7}{one['seconds']:>9}"
        )
    for name, one in result["judges"].items():
        if one["unjudged"]:
            why = ", ".join(f"{count} {status}" for status, count in one["unjudged"].items())
            lines.append(f"{name} unjudged: {why}")
    for name, one in result["judges"].items():
        for what, count in one["complaints"].items():
            lines.append(f"{name}: {what}" + (f" ({count} times)" if count > 1 else ""))
        for title in ("wrong", "lost"):
            labels = one[f"{title}_labels"]
            for label in labels[:SHOWN]:
                lines += ["", f"{name}, {title}: {label['what']}"]
                lines += [f"  {key:<12}{value}" for key, value in label.items() if key != "what"]
            if len(labels) > SHOWN:
                lines.append(f"and {len(labels) - SHOWN} more; --json has them")
    lines.append("")
    if result["ok"]:
        lines.append("no label is wrong, and every verdict that can be told was read")
    else:
        lines.append(
            f"{result['wrong']} labels are wrong, {result['lost']} verdicts that can be told were not read"
        )
    return "\n".join(lines)
