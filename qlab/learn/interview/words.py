"""The small words by which an answer denies, guesses, reports or relates; phrases of lower-case words."""

from __future__ import annotations

import re

# Behind these a clause begins, and what was denied before is denied no longer.
BEGINS_CLAUSE = frozenset(
    "but because so since while whereas though although unless if when which then and however yet therefore".split()
)

CONTRACTED = {"re": "are", "ve": "have", "ll": "will", "m": "am", "d": "would"}

# At the beginning of what follows: the next words are denied.
DENIES = re.compile(
    r"(?:not|no|never|without|neither|nor|hardly|barely|rarely|nothing|none|nobody|lacks?|lacking|"
    r"(?:fails?|failed|failing|unable) to|(?:instead|short) of|rather than|far from|anything but|too \w+ to) "
)
DENIES_NOTHING = re.compile(
    r"(?:not|no) (?:only|just|merely|simply|solely|even|more than|less than|later than|fewer than|to mention|forget|"
    r"doubt|problem|sure|certain|exactly|quite|necessarily by) |no matter "
)
NEGATIVE = frozenset("not no never without neither nor hard noth".split())  # as stems
# Anywhere in a clause: all of it is denied.
DENIES_CLAUSE = re.compile(
    r" (?:is|are|was|were|be|being) (?:a |an |just |simply |plain |plainly |also |only |pure |the )*"
    r"(?:myth|wrong(?! by)|false|untrue|misconception|incorrect|nonsense|misleading|mistaken|mistake|fallacy) "
)

# A guess, unless a number follows: "maybe 40 GB" and "I'd guess about two" are estimates.
_NUMBER = (
    r"(?! (?:at |about |around |some |roughly |it is |like |a |an )*(?:[\d$]\S*|one|two|three|four|five|six|seven|"
    r"eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|half|third|"
    r"quarter|dozen|twice) (?!bits? ))"
)
HEDGES = re.compile(
    rf" (?:(?:maybe|perhaps|possibly){_NUMBER}|(?:i|we) (?:would |can only |could only )?(?:guess|suppose){_NUMBER}|"
    r"not (?:really |quite |entirely |totally |completely |too )?(?:sure|certain)|unsure|no idea|my guess|"
    r"i (?:do|did) not (?:really |quite |exactly )?(?:know|remember|recall)|dunno|or something|or whatever|"
    r"something like that|(?:could|might|may) be wrong|hard to say|i forget) "
)

# Not knowing, or refusing to say: what follows is offered by nobody.
DISCLAIMS = re.compile(
    r" (?:(?:have|has|had) no idea (?:how|what|why|whether|if|where|which)|(?:forget|forgot|forgotten) (?:how|what|why|"
    r"whether|if|where|which)|(?:do|did) not (?:know|remember|recall) (?:how|why|whether|if|where|which)|(?:would|will|"
    r"should) (?:never|not) (?:say|claim|promise|believe|pretend)(?! (?:anything|yes|no|so) )) "
)

# What others say, or what one might think.
REPORTS = re.compile(
    r" (?:(?:people|they|many|some|blogs?|texts?|articles?|colleagues?|vendors?|everyone|everybody|someone|somebody|"
    r"finance|cfo|department|team|slides?|posts?|papers?|marketing|group) (?:will |often |usually |always |may |might |"
    r"would |have |has |had |in my group )*(?:say|says|said|claim|claims|claimed|think|thinks|believe|"
    r"believes|read|reads|quote|quotes|quoted|hope|hopes|assume|assumes|expect|expects|promise|promises|tell|tells|told)|"
    r"(?:you|one) (?:might|may|could|would|will) (?:naively )?(?:think|say|expect|believe|assume|hope)|tempting|"
    r"(?:claim|myth|idea|belief|slogan|folklore|headline|rumou?r|intuition) (?:that|is|of|says)|sounds like|"
    r"on paper|naively|naive|contrary) "
)

# At the beginning of a sentence: the one before it is taken back.
RETRACTS = re.compile(
    r" (?:(?:and|but|well|yet|of course|sadly|alas) )?(?:(?:that|this|it|which|both) (?:is|was|are|would be) "
    r"(?:just |simply |plainly |also |of course |a |an |the |only |exactly |quite |partly |a common )*"
    r"(?:not (?:true|so|right|correct|the case|how it works|what happens|what it does)|wrong(?! by)|false|untrue|"
    r"incorrect|myth|nonsense|misconception|fallacy|misleading|backwards|mistake|other way (?:round|around))|"
    r"(?:not (?:true|so)|wrong|false|nonsense|incorrect|untrue)) "
)

# Words by which one thing is said of another: reasons, comparisons, conditions, order, and who does what.
RELATIONS = frozenset(
    """
    after already always anything anyway back because before best better bigger both but can cannot cheaper did do does
    done double down enough every everything faster fewer get gets goes got half hence higher how if instead it just
    keep keeps larger least less little longer lower make makes more most much must nearly need needs never no nobody
    not nothing off once only out over per plus put really rest run runs same shorter slower smaller so stay stays still
    take takes tell tells than that then therefore they this thus times twice unless until when whereas which why will
    without worse wrong you your
    """.split()
)
