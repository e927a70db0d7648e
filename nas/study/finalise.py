"""Finalise a study: verify the members of its front, and refit the picks where that is asked for.

The front of a search rests on short trainings and predictions. Its members are trained by the final
recipe on the train split, judged on the validation split and measured on the device; the front is
then built anew from these numbers. The test split is read last, once for each member, and decides
nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nas.core.dataset import SearchSplits
from nas.core.errors import ConfigError, HwnasError
from nas.core.files import write_json_atomically
from nas.core.records import decoding, read_json
from nas.core.seeding import training_seed
from nas.core.trial import FULL, Candidate
from nas.logging import Logger
from nas.network.inheritance import InitialWeights
from nas.results.hypervolume import hypervolume_order
from nas.results.study import PICKS, StudyResults
from nas.search.problem import SearchProblem
from nas.study.folder import StudyFolder
from nas.study.reporting import Reporter
from nas.study.settings import StudySettings
from nas.study.verification import Verification, WithTeacher


@dataclass
class Finalisation:
    """The last stage of a study.

    Attributes:
        taught: As of `Verification`.
        fitting: Returns how many members of a front, the first ones, there is time for, and at
            least so many. It is asked again, of those that are left, when these are verified.
        initial: What the members inherit their weights from before they are trained.
    """

    settings: StudySettings
    folder: StudyFolder
    splits: SearchSplits
    problem: SearchProblem
    results: StudyResults
    reporter: Reporter
    logger: Logger
    taught: WithTeacher
    fitting: Callable[[Sequence[str], int], int]
    initial: InitialWeights | None = None

    def run(self) -> bool:
        """Verify the members of the front that are not verified yet; return whether all are."""
        members, further = self._members()
        verification = Verification(
            settings=self.settings,
            problem=self.problem,
            train=self.splits.train,
            validation=self.splits.validation,
            test_fingerprint=self.folder.record()["data_fingerprint"]["splits"]["test"],
            folder=self.folder.finalised,
            taught=self.taught,
            reporter=self.reporter,
            logger=self.logger,
            initial=self.initial,
        )
        complete = verification.run(members)
        while complete and (number := self._number(further, least=0)):
            members, further = [*members, *further[:number]], further[number:]
            self._choose(members, further)
            complete = verification.run(members)
        if picked := self._picked(members):
            members = [*members, *picked]
            self._choose(members, further)
            complete = verification.run(picked) and complete
        for repeat in range(1, self.settings.finalise.seeds):
            self.reporter.stage(f"training once more, with seed {repeat + 1} of each architecture")
            again = dataclasses.replace(verification, folder=self.folder.repeated / str(repeat))
            complete = again.run([self._reseeded(each, repeat) for each in members]) and complete
        if not (complete and members and self.settings.finalise.refit):
            return complete
        self.reporter.stage("refitting the front's picks on train and validation images together")
        both = self.splits.train.joined(self.splits.validation)
        refitting = dataclasses.replace(
            verification, train=both, validation=None, folder=self.folder.refitted
        )
        return refitting.run(self._picks())

    def _members(self) -> tuple[list[Candidate], list[Candidate]]:
        """Return the members to verify, and those for which time may be left.

        They are the same ones however often the study is interrupted: they are chosen once for a
        number of trials, as later verified values would have a say.
        """
        path = self.folder.members
        fix = "restore it from a copy, or delete it and run the same command again"
        chosen = read_json(path, {"members": list}, fix) if path.is_file() else {}
        if chosen.get("made_for") != self._made_for:
            front = self._front()
            number = self._number(front, least=1)
            self._choose(front[:number], front[number:])
            return front[:number], front[number:]
        with decoding(path, fix):
            members, further = (
                [Candidate(**{**m, "genotype": tuple(m["genotype"])}) for m in chosen.get(key, [])]
                for key in ("members", "further")
            )
            return members, further

    def _number(self, front: Sequence[Candidate], *, least: int) -> int:
        return self.fitting([member.arch_id for member in front], least)

    @property
    def _made_for(self) -> dict[str, Any]:
        """What the choice of members depends on."""
        limit = self.settings.finalise.limit
        made_for: dict[str, Any] = {"trials": len(self.results.trials()), "limit": limit}
        if self.settings.budget is not None:
            made_for["budget"] = self.settings.budget
        return made_for

    def _choose(self, members: Sequence[Candidate], further: Sequence[Candidate]) -> None:
        """Record which members are verified, and which ones where time is left."""
        chosen: dict[str, Any] = {
            "made_for": self._made_for,
            "members": [dataclasses.asdict(member) for member in members],
        }
        if further:
            chosen["further"] = [dataclasses.asdict(member) for member in further]
        self.folder.members.parent.mkdir(exist_ok=True)
        write_json_atomically(self.folder.members, chosen)

    def _front(self) -> list[Candidate]:
        """Return the front of the search; of a long one those that add the most hypervolume.

        The most accurate network is always among them.
        """
        columns = list(self.results.columns.values())
        front = self.results.pareto(objectives=columns)
        if front.empty:
            raise HwnasError(f"study {self.settings.name!r}: {self._why_empty()}")
        order = hypervolume_order(front[columns].to_numpy(float), self.results.reference_point)
        if (column := self.results.columns.get(self.results.metric)) is not None:
            best = int(front[column].to_numpy(float).argmin())
            order = [best, *(i for i in order if i != best)]
        return [self._member(front.iloc[i]) for i in order[: self.settings.finalise.limit]]

    def _why_empty(self) -> str:
        trials = self.results.trials()
        kept = "its trials are kept"
        if not ((trials["status"] == "complete") & (trials["fidelity"] == FULL)).any():
            return f"no architecture was trained fully; {kept}, raise the limits of the search"
        limits = ", ".join(map(str, self.problem.constraints))
        fix = "loosen search.constraints under another name or raise search.evaluations"
        return f"no trial meets {limits}; {kept}, {fix}"

    def _picked(self, members: Sequence[Candidate]) -> list[Candidate]:
        """Return the architectures of `finalise.picks` that are not among the members.

        They are picked by the values of the search, as all of the verified front are members.
        """
        picked, columns = dict[str, Candidate](), list(self.results.columns.values())
        for text in self.settings.finalise.picks:
            row = self.results.pick(text, columns)
            if row["fidelity"] != FULL:
                raise ConfigError("finalise.picks", text, "an architecture that was trained fully")
            picked[str(row["arch_id"])] = self._member(row)
        known = {member.arch_id for member in members}
        return [each for arch_id, each in picked.items() if arch_id not in known]

    def _reseeded(self, member: Candidate, repeat: int) -> Candidate:
        """Return a member that is trained with another seed."""
        seed = training_seed(self.settings.seed, f"{member.arch_id}, {repeat}")
        return dataclasses.replace(member, seed=seed)

    def _picks(self) -> list[Candidate]:
        """Return the architectures that the names of picks stand for in the verified front."""
        picked = {}
        for name in PICKS:
            # The front may be empty, or have no measured latency.
            with contextlib.suppress(ConfigError):
                row = self.results.pick(name)
                picked[str(row["arch_id"])] = self._member(row)
        return list(picked.values())

    def _member(self, row: pd.Series[Any]) -> Candidate:
        return Candidate(
            number=int(row["number"]),
            genotype=tuple(row["genotype"]),
            arch_id=str(row["arch_id"]),
            seed=training_seed(self.settings.seed, str(row["arch_id"])),
        )
