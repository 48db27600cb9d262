"""Checks a recorded history against the guarantees of the service. Pure: no I/O, no clock, no
randomness.

Theory of operation. Each commit returns a version, and versions are the order in which the service
says that it did things. That order is a witness: instead of searching for an order that explains
the answers, as a general checker must, it is enough to see whether this one does. So everything is
one replay and some sweeps, O(n log n) for n calls, plus one look at each step of each device.

The rules, by the names under which anomalies are reported:

    versions    each version has one writer, each write one version; 1 to the last, none left out
    realtime    what returned before something else was invoked has the lower version; answers
                that only read (refusals, writes that changed nothing) speak of no older one
    fifo        writes sent one after another on one connection, answered there, are in that order
    replay      in version order, a model gives the effect of each commit and the final state
    answer      refusals, and answers that nothing changed, are what the model says of that version;
                a repeated write is answered with the version of the first time
    guard       no write with a base version has changed a key that is newer than the base
    stream      a device's versions rise without a hole, and each step is what happened
    converge    in the end every device has the last version and its state
    lost        each acknowledged element of a list and each sum is there
    twice       none is there twice
    epoch       the session is one from beginning to end
    unsettled   in the end nothing is unknown

An answer with a version and no changes may mean "it was done before, as that version" or "nothing
changed at that version". Who wrote a version is told by its acknowledgement or by what devices
saw; where both were lost, the call that explains the version is taken.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from support.history import model
from support.history.records import Call, History, State, Step, Stream, Writer
from support.history.timeline import Timeline

RULES = (
    *("versions", "realtime", "fifo", "replay", "answer", "guard"),
    *("stream", "converge", "lost", "twice", "epoch", "unsettled"),
)

REMEMBERED = 256
"""Versions of which the store knows the lineage: a base before them cannot be verified."""

Anomalies = dict[str, list[str]]


def check(history: History) -> Anomalies:
    """The violations by rule; empty when there is none."""
    return Checker(history).run()


class Checker:
    """One check of one history."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.calls = {call.writer: call for call in history.calls}
        self.timeline = Timeline()
        self.writers: dict[int, Writer] = {}
        self.made: dict[Writer, int] = {}
        self.found: Anomalies = defaultdict(list)

    def run(self) -> Anomalies:
        steps = list({id(s): s for stream in self.history.streams for s in stream.steps}.values())
        self.witness(steps)
        self.replay(steps)
        self.answers()
        self.guards()
        self.realtime()
        self.fifo()
        self.streams(steps)
        self.accounts()
        return dict(self.found)

    def report(self, rule: str, text: str) -> None:
        assert rule in RULES
        self.found[rule].append(text)

    # Who wrote which version

    def witness(self, steps: list[Step]) -> None:
        """From acknowledgements, and from steps that name their writer."""
        for call in self.history.calls:
            if not call.answers:
                self.report("unsettled", f"{call.writer} has no answer")
            for answer in call.answers:
                if answer.committed:
                    self._claim(answer.version, call.writer)
        for step in steps:
            if step.writer is not None:
                self._claim(step.version, step.writer)

    def _claim(self, version: int, writer: Writer) -> None:
        if writer not in self.calls:
            self.report("versions", f"{version} was written by {writer}, who never asked")
        if self.writers.setdefault(version, writer) != writer:
            self.report("versions", f"{version} belongs to {self.writers[version]} and {writer}")
        elif self.made.setdefault(writer, version) != version:
            self.report("versions", f"{writer} made {self.made[writer]} and {version}")

    # Replay

    def replay(self, steps: list[Step]) -> None:
        """Build the timeline, version by version."""
        told = {s.version: s.changes for s in steps if s.prev == s.version - 1 and s.full is None}
        doubtful = self._doubtful()
        last = max([self.history.final_version, *self.writers, *doubtful])
        for version in range(1, last + 1):
            writer = self.writers.get(version) or self._explain(version, doubtful.get(version, []))
            if writer is None or writer not in self.calls:
                self.report("versions", f"{version} has no writer")
                self.timeline.append(told.get(version, {}))
                continue
            self._apply(version, self.calls[writer])
        if last != self.history.final_version:
            self.report("versions", f"{last} was made, {self.history.final_version} is the last")
        if self.history.final != self.timeline.state(last):
            self.report("replay", "the final state is not what the commits lead to")

    def _doubtful(self) -> dict[int, list[Call]]:
        """Calls that were only told a version at which nobody is known to have written."""
        found: dict[int, list[Call]] = defaultdict(list)
        for call in self.history.calls:
            if call.answers and not call.refused and call.writer not in self.made:
                version = call.answers[0].version
                if version not in self.writers:
                    found[version].append(call)
        return found

    def _explain(self, version: int, calls: list[Call]) -> Writer | None:
        """The one after which none of the others has anything left to do."""
        for call in calls:
            effect = self._would_do(call, version, {})
            others = (c for c in calls if c is not call)
            # The first write makes the session, whatever it changes.
            if (effect or (version == 1 and effect is not None)) and not any(
                self._would_do(other, version, effect) for other in others
            ):
                self.made[call.writer] = version
                return call.writer
        return None

    def _would_do(self, call: Call, version: int, first: State) -> State | None:
        """Effect before a version, or there after another effect; None when it is refused."""
        before = version - 1
        try:
            return model.effect(
                call.payload,
                lambda key: first[key] if key in first else self.timeline.get(key, before),
                lambda key: version if key in first else self.timeline.changed_at(key, before),
            )
        except model.Refusal:
            return None

    def _apply(self, version: int, call: Call) -> None:
        try:
            effect = self.timeline.effect(call.payload, version - 1)
        except model.Refusal as refusal:
            self.report("replay", f"{version}: {call.writer} had to be refused: {refusal.code}")
            effect = {}
        told = [answer.changes for answer in call.answers if answer.changes is not None]
        if told and told[0] != effect:
            self.report("replay", f"{version}: {call.writer} did {effect}, was told {told[0]}")
        elif not effect and version > 1:
            self.report("replay", f"{version}: {call.writer} changes nothing there")
        self.timeline.append(told[0] if told else effect)

    # Answers

    def answers(self) -> None:
        """Every answer that is not a commit's own, against the model at its version."""
        for call in self.history.calls:
            made = self.made.get(call.writer)
            for answer in call.answers:
                if answer.committed:
                    continue
                if answer.code:
                    self._refused(call, answer.version, answer.code, answer.conflicts, made)
                elif made is None:
                    self._unchanged(call, answer.version)
                elif made != answer.version:
                    self.report("answer", f"{call.writer} made {made}, told {answer.version}")

    def _refused(
        self, call: Call, version: int, code: str, conflicts: State | None, made: int | None
    ) -> None:
        if made is not None:
            self.report("answer", f"{call.writer} was refused ({code}) and is version {made}")
            return
        if code == "base_lost":
            base = call.payload["base_version"]
            lost = (base, call.payload.get("base_lineage", "")) in self.history.lost
            if version - base < REMEMBERED and not lost:
                self.report("answer", f"{call.writer} at {version}: {base} is of this history")
            return
        try:
            effect = self.timeline.effect(call.payload, version)
        except model.Refusal as refusal:
            if (refusal.code, refusal.conflicts) != (code, conflicts):
                self.report("answer", f"{call.writer} at {version}: {refusal.conflicts} in the way")
            return
        self.report("answer", f"{call.writer} was refused ({code}) at {version}, could do {effect}")

    def _unchanged(self, call: Call, version: int) -> None:
        try:
            effect = self.timeline.effect(call.payload, version)
        except model.Refusal as refusal:
            self.report("answer", f"{call.writer} at {version} had to be refused: {refusal.code}")
            return
        if effect:
            self.report("answer", f"{call.writer} did nothing at {version}, had to do {effect}")

    def guards(self) -> None:
        """Told without the model: who changed a guarded key between base and commit?"""
        for writer, version in self.made.items():
            call = self.calls.get(writer)
            if call is None or call.payload.get("operation") in model.COMMUTING:
                continue
            base: int = call.payload.get("base_version", version)
            for key in model.keys_of(call.payload):
                newer = self.timeline.changed_at(key, version - 1)
                if newer > base:
                    self.report("guard", f"{writer} overwrote {key} of {newer}, knew {base}")

    # Order

    def realtime(self) -> None:
        """One sweep over the moments of invoking and returning."""
        moments: list[tuple[int, bool, int]] = []
        calls = [call for call in self.history.calls if call.answers]
        for index, call in enumerate(calls):
            moments += [(call.invoked, True, index), (call.returned, False, index)]
        newest, floors = 0, [0] * len(calls)
        for _, invoked, index in sorted(moments):
            if invoked:
                floors[index] = newest
                continue
            call = calls[index]
            made = self.made.get(call.writer)
            version = made or call.answers[0].version
            newest = max(newest, version)
            if version < floors[index] or (made and made == floors[index]):
                self.report("realtime", f"{call.writer}: {version}, {floors[index]} was known")

    def fifo(self) -> None:
        """Writes that were sent once, by connection."""
        sent: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for call in self.history.calls:
            plain = call.attempts == 1 and call.payload.get("operation") != "MERGE"
            if plain and call.answers and call.answers[0].committed:
                sent[call.place[0]].append((call.place[1], call.answers[0].version))
        for places in sent.values():
            versions = [version for _, version in sorted(places)]
            for earlier, later in pairwise(versions):
                if earlier > later:
                    self.report("fifo", f"{later} was sent after {earlier}")

    # What devices saw

    def streams(self, steps: list[Step]) -> None:
        """Each different step once, then the order in which each device got them."""
        for step in steps:
            self._step(step)
        for epoch in {step.epoch for step in steps} - {self._epoch(steps)}:
            self.report("epoch", f"{epoch!r} beside {self._epoch(steps)!r}")
        for stream in self.history.streams:
            self._stream(stream)

    def _epoch(self, steps: list[Step]) -> str:
        """The lineage of version 1 and later; a session that does not exist yet has none."""
        return next((step.epoch for step in steps if step.version), "")

    def _step(self, step: Step) -> None:
        if step.version > self.timeline.version:
            self.report("stream", f"{step.version} was never made")
        elif step.full is not None:
            wanted = self.timeline.state(step.version)
            if step.full != wanted:
                every = {*step.full, *wanted}
                wrong = sorted(key for key in every if step.full.get(key) != wanted.get(key))
                text = f"{len(wrong)} of {len(every)}: {wrong[:8]}"
                self.report("stream", f"a whole state at {step.version} is wrong about {text}")
        else:
            told = {*step.changes, *self._changed(step.prev, step.version)}
            wrong = [
                key
                for key in told
                if not model.same(
                    step.changes[key] if key in step.changes else self.timeline.get(key, step.prev),
                    self.timeline.get(key, step.version),
                )
            ]
            if wrong:
                self.report("stream", f"{step.prev} to {step.version} is wrong about {wrong}")

    def _changed(self, after: int, upto: int) -> Iterator[str]:
        for version in range(after + 1, upto + 1):
            yield from self.timeline.effects[version]

    def _stream(self, stream: Stream) -> None:
        mine = 0
        for step in stream.steps:
            if step.version < mine or (step.version == mine and step.full is None):
                self.report("stream", f"{stream.device} got {step.version} at {mine}")
            elif step.full is None and step.prev > mine:
                self.report("stream", f"{stream.device} missed {mine + 1} to {step.prev}")
            mine = max(mine, step.version)
        last = self.history.final_version
        if (stream.version, stream.copy) != (last, self.history.final):
            self.report("converge", f"{stream.device} is at {stream.version}, not at {last}")

    # Sums and lists: nothing lost, nothing twice, told from the final state alone

    def accounts(self) -> None:
        """Keys that were only ever appended to, or only ever added to."""
        by_key: dict[str, list[Call]] = defaultdict(list)
        for call in self.history.calls:
            for key in model.keys_of(call.payload):
                by_key[key].append(call)
        audits: dict[str, Callable[[str, list[Call]], None]] = {
            "APPEND": self._audit_list,
            "INCR": self._audit_sum,
        }
        for key, calls in by_key.items():
            kinds = {call.payload.get("operation", "SET") for call in calls}
            if len(kinds) == 1 and (audit := audits.get(kinds.pop())):
                audit(key, [call for call in calls if call.answers and not call.refused])

    def _audit_list(self, key: str, calls: list[Call]) -> None:
        there: Counter[str] = Counter(self.history.final.get(key, []))
        for call in calls:
            count = there.pop(call.payload["value"], 0)
            if count != 1:
                self.report(
                    "twice" if count else "lost", f"{call.writer} is {count} times in {key}"
                )
        if there:
            self.report("twice", f"{key} has {dict(there)}, which nobody was told of")

    def _audit_sum(self, key: str, calls: list[Call]) -> None:
        expected = sum(call.payload["value"] for call in calls)
        there = self.history.final.get(key, 0)
        if there != expected:
            rule = "lost" if there < expected else "twice"
            self.report(rule, f"{key} is {there}, and {expected} was acknowledged")
