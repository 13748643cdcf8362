"""Generates words, so that a model trained on them also reads words that it never saw."""

from __future__ import annotations

import random
import string

ONSETS = (
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p ph pl pr qu r s sc sh sl sm sn sp st str sw t th "
    "tr tw v w wh y z"
).split()
VOWELS = "a e i o u a e i o ai au ea ee ei ie oa oo ou y".split()
CODAS = ["", "", "", *"b ck d f g k l ll m n nd ng nt p r rd rk rn rt s ss st t th x z".split()]
COMMON = (
    "the of and to in is that for it was on are as with his they at be this from have or by one had "
    "not but what all were when we there can an your which their said if do will each about how up "
    "out them then she many some so these would other into has more her two like him see time could "
    "no make than first been its who now people my made over did down only way find use may water "
    "long little very after words called just where most know"
).split()
PUNCTUATION = ".,;:!?-'\"()[]{}<>/\\@#$%^&*_+=|~`"


def syllables(rng: random.Random) -> str:
    return "".join(
        rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(rng.randint(1, 3))
    )


def number(rng: random.Random) -> str:
    kind = rng.randrange(6)
    if kind == 0:
        return str(rng.randrange(10 ** rng.randint(1, 6)))
    if kind == 1:
        return f"${rng.randrange(1000)}.{rng.randrange(100):02d}"
    if kind == 2:
        return f"{rng.randrange(1, 32):02d}/{rng.randrange(1, 13):02d}/{rng.randrange(1950, 2040)}"
    if kind == 3:
        return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"
    if kind == 4:
        return f"{rng.randrange(100)}%"
    return f"{rng.randrange(1, 1000)},{rng.randrange(1000):03d}"


def word(rng: random.Random) -> str:
    """One word without blanks. All printable ASCII characters occur in such words."""
    draw = rng.random()
    if draw < 0.42:
        text = syllables(rng)
    elif draw < 0.57:
        text = rng.choice(COMMON)
    elif draw < 0.70:
        return number(rng)
    elif draw < 0.85:  # random letters: a reader cannot guess them
        alphabet = rng.choice(
            (string.ascii_lowercase, string.ascii_letters, string.ascii_letters + string.digits)
        )
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 8)))
        return text
    elif draw < 0.90:
        return "".join(rng.choice(string.printable[:94]) for _ in range(rng.randint(1, 6)))
    else:
        text = syllables(rng)
        mark = rng.choice(PUNCTUATION)
        return rng.choice(
            (f"{text}{mark}", f"{mark}{text}", f"{text}{mark}{syllables(rng)}", f"({text})", f'"{text}"')
        )
    style = rng.random()
    if style < 0.2:
        text = text.capitalize()
    elif style < 0.3:
        text = text.upper()
    return text + (rng.choice(".,;:!?") if rng.random() < 0.15 else "")


NARROW = "iljtfrI1.,:;!|'()"
CLOSING = (*".,;:!?", '."', ',"', '?"', '!"', ")", "),", ").", '"', "'s", " -")
OPERATORS = "= == != < > <= >= + - * / // % -> # & | ** += : @".split()


def name(rng: random.Random) -> str:
    """A name as in program code."""
    return rng.choice(string.ascii_letters) if rng.random() < 0.4 else syllables(rng)[:6].lower()


def code(rng: random.Random) -> str:
    """A piece of program code without blanks."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(OPERATORS)
    if kind == 1:
        return f"{name(rng)}({rng.choice((name(rng), str(rng.randrange(100)), ''))}" + rng.choice(
            (",", ")", "):", "))", ");", ")")
        )
    if kind == 2:
        value = rng.choice((name(rng), str(rng.randrange(10))))
        return f"{name(rng)}={value}{rng.choice(('', ',', ')', '):', ';'))}"
    if kind == 3:
        return f"{name(rng)}{rng.choice('._')}{name(rng)}{rng.choice(('', ',', ':', '()', '[0]', ')'))}"
    if kind == 4:
        return name(rng) + rng.choice(",:;)")
    return f"{rng.randrange(100)}{rng.choice(('', ')', ',', ':', '.', '%', '.5', ']'))}"


def prose(rng: random.Random) -> str:
    """One token of text as sentences, bills and programs have it: several marks in a row, narrow letters."""
    draw = rng.random()
    if draw < 0.10:
        return code(rng)
    if draw < 0.18:
        text = "".join(rng.choice(NARROW) for _ in range(rng.randint(1, 5)))
        return text
    if draw < 0.26:
        text = number(rng) if rng.random() < 0.5 else str(rng.randrange(10 ** rng.randint(1, 4)))
    elif draw < 0.60:
        text = rng.choice(COMMON)
    else:
        text = syllables(rng)
    style = rng.random()
    if style < 0.2:
        text = text.capitalize()
    elif style < 0.22:
        text = text.upper()
    if rng.random() < 0.12:
        text = rng.choice(('"', '"', "(", "'")) + text
    if rng.random() < 0.35:
        text += rng.choice(CLOSING).strip()
    return text
