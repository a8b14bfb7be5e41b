"""A little French and English to draw where no other text is given: words at random, numbers and punctuation."""

from __future__ import annotations

import numpy as np

FRENCH = """
le la les un une des du de et est dans pour que qui ne pas sur avec son sa ses au aux ce cette il elle nous vous ils
mais ou où donc or ni car être avoir faire dire aller voir savoir pouvoir vouloir venir année père mère frère sœur fils
fille maison jardin école élève maître forêt rivière montagne âme cœur œuvre œil yeux île août noël maïs naïf aiguë
garçon français leçon façon reçu déjà voilà très après près même tête fête bête être hôtel hôpital côté tôt bientôt
drôle pôle théâtre château gâteau bâton pâte âge goût coût sûr mûr brûler jeûne fenêtre lumière matière manière première
dernière été hiver automne printemps lundi mardi mercredi jeudi vendredi samedi dimanche janvier février mars avril juin
juillet septembre octobre novembre décembre lettre papier plume encre livre page ligne mot phrase texte histoire mémoire
monsieur madame enfant homme femme ville village route chemin église mairie registre acte naissance mariage décès témoin
signé soussigné cultivateur journalier propriétaire ouvrière boulanger kilomètre wagon yacht zéro quinze vingt cinquante
joyeux vieux heureux beaucoup toujours jamais quelquefois aujourd'hui l'eau d'abord qu'il s'est n'a j'ai c'était Zoé
Paris Lyon Genève Québec Bruxelles Anaïs Joël Hélène François Étienne Édouard À Ça Être
"""
ENGLISH = """
the a of and to in is was he she it for on are as with his her they at be this from have or by one had not but what all
were when we there can an your which their said if do will each about how up out them then many some so these would
other into has more two like him see time could no make than first been its who now people my made over did down only
way find use may water long little very after word called just where most know get through back much before go good new
write our used me man too any day same right look think also around another came come work three must because does part
even place well such here take why things help put years different away again off went old number great tell men say
small every found still between name should home big give air line set own under read last never us left end along while
might next sound below saw something thought both few those always looked show large often together asked house world
going want school important until form food keep children feet land side without boy once animals life enough took
sometimes four head above kind began almost live page got earth need far hand high year mother light parts country
father let night following picture being study second eyes soon times story boys since white days ever paper hard near
sentence better best across during today others however sure means knew try told young miles sun ways thing whole hear
example heard several change answer room sea against top turned learn point city play toward five using himself usually
money quick brown fox jumps lazy dog judge zebra wizard quartz kayak vex jigsaw
London Oxford York Dublin Boston Kate William Xavier Queen Victoria Monday Friday
"""
_DASH = " – "
PATTERNS = (
    "{}, ",
    "{}; ",
    "{}: ",
    "({}) ",
    '"{}" ',
    "« {} » ",
    "{}-",
    "{} / ",
    "{} & ",
    f"{{}}{_DASH}",
    "{}… ",
    "[{}] ",
)


def sentences(count: int = 4000) -> list[str]:
    """Lines of four to nine words of one language, always the same ones."""
    rng = np.random.default_rng(0)
    return [_sentence(rng, (FRENCH, ENGLISH)[i % 2].split()) for i in range(count)]


def _sentence(rng: np.random.Generator, words: list[str]) -> str:
    line = ""
    for _ in range(rng.integers(4, 10)):
        word = _number(rng) if rng.random() < 0.12 else words[rng.integers(len(words))]
        line += (PATTERNS[rng.integers(len(PATTERNS))] if rng.random() < 0.15 else "{} ").format(word)
    line = line.rstrip(" ,;:-/&–")
    line = line[0].upper() + line[1:] if rng.random() < 0.7 else line
    return line.upper() if rng.random() < 0.04 else line + [".", "!", "?", "", " %", "*"][rng.choice(6, p=_ENDS)]


_ENDS = [0.5, 0.1, 0.1, 0.26, 0.02, 0.02]


def _number(rng: np.random.Generator) -> str:
    a, b = rng.integers(0, 100, 2).tolist()
    shapes = (f"{a}", f"{1500 + 5 * b}", f"{a}.{b:02}", f"{a},{b:02}", f"{a % 24}:{b % 60:02}", f"{a + 1}/{b % 12 + 1}")
    more = (f"{a} 000", f"n° {a}", f"+{a}", f"-{a}", f"{a}={b}", f"#{a}", f"${a}")
    return (*shapes, *more)[rng.integers(len(shapes) + len(more))]
