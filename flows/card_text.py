"""A judge's card as text, for a terminal or a Markdown page."""

from typing import Any

from serving.way import in_words


def figure(estimate: dict[str, Any] | None) -> str:
    """0.612 [0.570, 0.652] n 412; a dash where there is none."""
    if estimate is None:
        return "–"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}] n {estimate['n']}"


def lines(card: dict[str, Any]) -> list[tuple[str, str]]:
    """What to know first: (what, figure)."""
    agreement, rules = card["agreement"], card["baselines"]
    rows = [
        ("right winner, ties and failures wrong", figure(agreement["decided"])),
        ("right winner, of winners named", figure(agreement["decided_only"])),
        ("kappa, where people have a winner", figure(agreement["kappa_decided"])),
        ("three classes", figure(agreement["accuracy"])),
        ("kappa, three classes", figure(agreement["kappa"])),
    ]
    for name, own in rules.items():
        rows.append((f"“{name}”, right winner", figure(own["decided"])))
        against = card["against"][name]
        rows.append(
            (f"judge minus “{name}”, three classes", f"{figure(against['difference'])}, p {against['p']:.3g}")
        )
    for people in (card["people"],) if card["people"] else ():
        rows.append(("one person against the others", figure(people["one_out"])))
    orders = card["orders"]
    rows.append(
        ("the two orders agree", figure(orders["consistent"]) if orders else "judged alone: no order to try")
    )
    if orders:
        kinds = {
            "agree": ("same_winner", "both_tie"),
            "flip": ("first_twice", "second_twice"),
            "tie": ("tie_and_winner",),
        }
        counts = [f"{sum(orders[one] for one in own)} {kind}" for kind, own in kinds.items()]
        flips = f"{orders['first_twice']} flips to the first, {orders['second_twice']} to the second"
        rows.append(("orders", f"{', '.join(counts)} and winner, {orders['failed']} failed; {flips}"))
    for name, what in (("longer", "the longer"), ("lists", "the one with a list"), ("first", "the first")):
        own = card[name]
        rows.append((f"prefers {what}, more than people do", figure(own["excess"])))
    if card["own"]:
        rows.append(("prefers its own, more than people do", figure(card["own"]["excess"])))
    rows += [
        ("length slope", figure(card["length_slope"])),
        ("judge says tie", figure(agreement["ties"])),
        ("answers without a score", figure(card["failures"])),
        ("entropy of scores, bits of 2.32", figure(card["spread"]["entropy"])),
        ("scores at the top two of five marks", figure(card["spread"]["top_two"])),
        ("tied for best", figure(card["spread"]["tied_for_best"])),
    ]
    for member, counts in card["statuses"].items():
        rows.append((f"judgements by {member}", ", ".join(f"{n} {status}" for status, n in counts.items())))
    for model, way in card.get("dialects", {}).items():
        rows.append((f"{model} is asked as", in_words(way)))
    if card["calibration"]:
        rows.append(("calibration error", figure(card["calibration"]["ece"])))
        rows.append(("Brier score (0.25 is a coin)", figure(card["calibration"]["brier"])))
    for canary in card["canaries"]:
        none = f", {canary['unscored']} without a score" if canary["unscored"] else ""
        rows.append((f"canary “{canary['name']}” scores below", figure(canary["below"]) + none))
    return rows + cost_lines(card["cost"])


def cost_lines(cost: dict[str, Any]) -> list[tuple[str, str]]:
    usage = cost["usage"]
    tokens = usage["prompt_tokens"] + usage["completion_tokens"]
    rows = []
    for name, count in (("judgement", cost["judgements"]), ("usable pair", cost["usable_pairs"])):
        if count:
            price = f", price {cost['price'] / count:.3g}" if cost["price"] else ""
            rows.append(
                (
                    f"per {name}, of {count}",
                    f"{tokens / count:.0f} tokens, {cost['seconds'] / count:.2f} s{price}",
                )
            )
    return rows


def heading(card: dict[str, Any]) -> str:
    gold = card["gold"]
    part = f" of {gold['in_file']}" if gold["in_file"] != gold["items"] else ""
    dropped = ", ".join(f"{count} {reason}" for reason, count in gold["dropped"].items())
    left_out = f"; left out: {dropped}" if dropped else ""
    return (
        f"judge {card['name']} ({card['judge']}) on {gold['name']}: {gold['items']}{part} rows, "
        f"{gold['prompts']} prompts, {gold['pairs']} pairs, {gold['ties']} ties{left_out}"
    )


def card_text(card: dict[str, Any]) -> str:
    return "\n".join(
        [heading(card), *(f"  {name:<44} {value}" for name, value in lines(card)), f"  {card['page']}"]
    )


def card_markdown(card: dict[str, Any]) -> str:
    """A table, for a page that quotes it."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in lines(card))
    return f"{heading(card)}.\n\n| figure | value [95 % interval] |\n| --- | --- |\n{rows}\n"
