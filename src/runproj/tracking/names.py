"""Names for runs that were given none: an adjective, an animal or thing, and a number; and what is said of names of nothing."""

from __future__ import annotations

import os

from runproj.errors import NotFoundError

_ADJECTIVES = (
    "able agile airy alert amber ample apt arid avid awake bold brave brief bright brisk calm candid clear clever cosy crisp "
    "curious daring deft eager early easy exact fair fancy fast fine firm fleet fond fresh frank gentle glad golden good grand "
    "great green handy happy hardy hasty honest humble icy ideal jolly keen kind large lasting late lean light lively long loud "
    "loyal lucid lucky lunar magic mellow merry mild modest neat nimble noble novel odd open patient plain polite prime proud "
    "quick quiet rapid rare ready regal rich robust rosy round royal safe serene sharp shiny silent silver simple sleek slim "
    "smart smooth snug solar solid sound spry steady stout strong sunny sure sweet swift tall tidy tough true upbeat valiant "
    "vast vivid warm whole wild wise witty young zesty"
)
_NOUNS = (
    "acorn alder anchor ant apple ash asp badger bass bat bay beach bear beaver bee birch bird bison boar brook bug calf camel "
    "carp cat cedar clam cliff cloud cobra cod colt comet condor coot coral cove crab crane creek crow cub dale dawn deer dove "
    "dune eagle eel elk elm ember falcon fawn fern field finch fir fjord flame flint foal forest fox frog gale gate gecko glade "
    "glen goat goose grove gull hare harbor hawk hazel heron hill horse ibex iris island ivy jay kite koala lake lark leaf lemur "
    "lily lion lizard llama lynx maple marsh meadow mink mole moon moose moss moth mouse newt oak oasis ocean orca otter owl ox "
    "panda peak pearl perch pike pine plum pond pony prairie puffin quail quartz rabbit raven reef ridge river robin rock rook "
    "rose sage salmon seal shark sheep shore shrew skunk sky sloth snail snow sparrow spruce squid stag star stoat stork stone "
    "storm stream swan tern thrush tide tiger toad trout tulip turtle valley vole wave whale willow wolf wren yak zebra"
)


def run_name() -> str:
    """A new name, such as `brisk-heron-417`.  Names need not be unique; ids are."""
    chance = int.from_bytes(os.urandom(8), "big")
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    chance, number = divmod(chance, 1000)
    chance, noun = divmod(chance, len(nouns))
    return f"{adjectives[chance % len(adjectives)]}-{nouns[noun]}-{number}"


def no_experiment(reference: str) -> NotFoundError:
    """What is said of an experiment that is not there."""
    return NotFoundError(f"There is no experiment {reference!r}", fix="`runproj experiments list` shows those there are.")
