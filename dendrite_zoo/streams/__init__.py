"""Tasks as LightningDataModules, one after another or all at once, and the data that they are made of."""

from dendrite_zoo.streams.demonstrations import *
from dendrite_zoo.streams.hub_source import *
from dendrite_zoo.streams.images import *
from dendrite_zoo.streams.loader import *
from dendrite_zoo.streams.mixed import *
from dendrite_zoo.streams.ngrams import *
from dendrite_zoo.streams.online import *
from dendrite_zoo.streams.rounds import *
from dendrite_zoo.streams.sampling import *
from dendrite_zoo.streams.sequence import *
from dendrite_zoo.streams.sources import *
from dendrite_zoo.streams.stream import *
from dendrite_zoo.streams.tasks import *
