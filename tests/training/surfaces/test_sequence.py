"""Moving surfaces: moments one after the other, their motions, exact resume, what is refused."""

import dataclasses
import math

import pytest
import torch

from lumigraph.core import Similarity
from lumigraph.core.errors import CheckpointError, ConfigError, DataError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.fields import MovingField
from lumigraph.training import StepEvent, evaluate, resume, train, train_config
from lumigraph.training.checkpoint import load_checkpoint
from lumigraph.training.files import newest_checkpoint, read_lines
from lumigraph.training.method import Progress
from lumigraph.training.moment_files import moment_path
from lumigraph.training.neus import NeusMethod
from lumigraph.training.neus_playback import build_neus, still_model
from lumigraph.training.neus_sequence import NeusSequence
from lumigraph.training.sequence_plan import SequencePlan

from .conftest import motions, moving_scene

CPU = torch.device("cpu")
