"""Why LMD hardly tells the sensors' own cars apart on the CRN demo: the slope of the last ReLU.

    python scripts/studies/last_relu.py --samples 40

The heat map is a convolution of what one last ReLU lets through. Each rule below gives a sensor's
part h of that ReLU's input z another say in its output, and is scored as in ``lmd score``:

- ``output / input``: eq. 9, LMD as it is. A unit that is off has slope 0, so whoever switched it
  off gets nothing for it.
- ``live``: relu(z) - relu(z - h), with the same parts h.
- ``from the bias``: the slope (relu(z) - relu(b)) / (z - b), b the bias part (the rescale rule of
  DeepLIFT, Shrikumar et al., 2017). Linear in the parts and conserving, as eq. 9 is.
- ``only here``: h is what z loses without the sensor in the unchanged network, and eq. 9 holds in
  this one ReLU.
- ``leave-one-out``: nothing is linearised.

Then what the convolution's positive and negative weights make of the ReLU's output, and the logit,
on detected cars and where there is no car.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.forward import fuse_function
from lmd_cli.config.loading import load_config
from lmd_cli.data.synthetic import read_evidence, read_instances
from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.pytrees import map_tensors
from lmd_cli.decomposition.result import Parts
from lmd_cli.evaluation.ground.detection import criterion_of
from lmd_cli.evaluation.ground.footprints import Footprint, FootprintMeans, detected, footprints
from lmd_cli.evaluation.scores.against_ground_truth import Vehicle, ground_truth_scores
from lmd_cli.workflows.ready import encode

#: The module whose output the last ReLU takes, and the branch that it is in.
BRANCH = "head.task_heads.0.heatmap"
BEFORE = f"{BRANCH}.0.bn"
LMD, LEAVE_ONE_OUT = "output / input", "leave-one-out"
LEVELS = ("positive weights", "negative weights", "logit")

Maps = Mapping[str, Tensor]
Linear = Callable[[Tensor], Tensor]


def by_rule(before: Parts, without: Maps, linear: Linear) -> dict[str, Maps]:
    """Each sensor's part of the heat map under the rules that start from the last ReLU's input.

    Args:
        before: that input z (1, C, rows, columns) and its parts.
        without: z with a sensor's features zeroed, the network unchanged.
        linear: the convolution behind the ReLU, without its bias.
    """
    z, b = before.total, before.bias
    slope = (z > 0).to(z.dtype)
    far = (z - b).abs() > 1e-6
    rescaled = torch.where(far, (z.relu() - b.relu()) / torch.where(far, z - b, 1.0), slope)
    parts = before.parts
    return {
        LMD: {m: linear(slope * h) for m, h in parts.items()},
        "live": {m: linear(z.relu() - (z - h).relu()) for m, h in parts.items()},
        "from the bias": {m: linear(rescaled * h) for m, h in parts.items()},
        "only here": {m: linear(slope * (z - other)) for m, other in without.items()},
    }


class Study:
    """What was found so far: vehicles by rule, and the heat map's levels on cars and elsewhere."""

    def __init__(self, config_name: str):
        self.config = load_config(config_name)
        self.network: Any = build_network(self.config, torch.device("cpu")).network
        self.data: Any = build_dataset(self.config)
        nuscenes: Any = self.config.data
        tables = self.data.dataroot / nuscenes.version
        self.evidence, self.instances = read_evidence(tables), read_instances(tables)
        self.last: Any = self.network.get_submodule(f"{BRANCH}.1")
        self.vehicles: dict[str, list[Vehicle]] = {}
        self.levels: dict[str, list[Any]] = {"detected cars": [], "no car": []}

    def sample(self, index: int) -> None:
        """Adds one sample's cars under every rule."""
        features, constants = encode(self.network, [self.data[index]], torch.device("cpu"))
        fuse = fuse_function(self.network, self.config.model.output, constants)
        at, left_out = self._decompose(fuse, features), {}
        for m in features:
            zeroed = {**features, m: map_tensors(torch.zeros_like, features[m])}
            left_out[m] = self._decompose(fuse, zeroed)
        without = {m: other.layers[BEFORE].total for m, other in left_out.items()}
        maps = by_rule(at.layers[BEFORE], without, self._linear)
        for m, part in at.parts.items():  # what is studied is the decomposition's own last step
            torch.testing.assert_close(maps[LMD][m], part, atol=1e-4, rtol=1e-4)
        maps[LEAVE_ONE_OUT] = {m: at.total - other.total for m, other in left_out.items()}
        cars = footprints(self.data, index, self.config.model.output)
        criterion = criterion_of(self.config.model.output, self.config.detection)
        found_by_network = [detected(at.total[0, 0], c, criterion) for c in cars]
        self._score(cars, found_by_network, at.total, maps)
        self._measure(cars, found_by_network, at.layers[BEFORE].total.relu(), at.total)

    def _decompose(self, fuse: Callable[..., Tensor], features: Mapping[str, Any]) -> Any:
        return decompose(fuse, features, root=self.network, layers=[BEFORE])

    def _linear(self, h: Tensor) -> Tensor:
        return F.conv2d(h, self.last.weight, padding=self.last.padding)

    def _score(
        self, cars: list[Footprint], detected: list[bool], total: Tensor, rules: Mapping[str, Maps]
    ) -> None:
        means = FootprintMeans.over(cars, total)
        for rule, maps in rules.items():
            maps = {**maps, BIAS: total - sum(maps.values())}
            values = {name: means(part)[0].tolist() for name, part in maps.items()}
            for i, car in enumerate(cars):
                parts = {name: numbers[i] for name, numbers in values.items()}
                truth = (self.instances[car.token], self.evidence[car.token], detected[i])
                self.vehicles.setdefault(rule, []).append(Vehicle(car.token, *truth, parts))

    def _measure(
        self, cars: list[Footprint], detected: list[bool], passed: Tensor, total: Tensor
    ) -> None:
        signs = (self.last.weight.clamp(min=0), self.last.weight.clamp(max=0))
        maps = [F.conv2d(passed, w, padding=self.last.padding) for w in signs]
        stack = torch.cat([*maps, total], dim=1)[0].detach().numpy()  # (3, rows, columns)
        empty = ~np.any([car.mask for car in cars], axis=0)
        self.levels["no car"].append(stack[:, empty].mean(1))
        hits = [stack[:, car.mask].mean(1) for car, hit in zip(cars, detected, strict=True) if hit]
        self.levels["detected cars"] += hits

    def show(self) -> None:
        """Prints two tables in Markdown."""
        for rule, vehicles in self.vehicles.items():
            scores = ground_truth_scores(vehicles, self.network.modalities)
            if rule == LMD:
                heads = [f"{s.name} {s.modality}".rstrip() for s in scores]
                print(f"\n| rule | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
            cells = [
                f"{s.interval.estimate:.2f} ({s.interval.low:.2f}, {s.interval.high:.2f})"
                for s in scores
            ]
            print(f"| {rule} | {' | '.join(cells)} |")
        print(f"\n| mean over | {' | '.join(LEVELS)} |\n|---|{'---|' * len(LEVELS)}")
        for group, levels in self.levels.items():
            print(f"| {group} | {' | '.join(f'{x:.2f}' for x in np.mean(levels, axis=0))} |")


def main(argv: list[str] | None = None) -> int:
    """Scores every rule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="demo_crn.yaml")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    study = Study(arguments.config)
    chosen = np.linspace(0, len(study.data) - 1, arguments.samples).astype(int).tolist()
    with torch.no_grad():
        for index in chosen:
            study.sample(index)
    study.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
