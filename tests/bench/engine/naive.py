"""The engine once more, in the plainest way: step by step, token by token, block by block.

Nothing is shared with `bench.engine` but the profile's numbers. Blocks are kept as vLLM's block
pool keeps them: each has a hash of the text up to its end, a count of users, and a place in one
list of all free blocks, the one unused longest first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from bench.engine import Profile
from bench.workload.model import Segment

__all__ = ["NaiveEngine", "Request"]


class Request:
    """A request, and what became of it."""

    def __init__(self, prompt: Sequence[Segment], output_tokens: int, answer: int) -> None:
        self.text = [(each.key, i) for each in prompt for i in range(each.tokens)]
        self.prompt_tokens = len(self.text)
        self.text += [(answer, i) for i in range(output_tokens)]
        self.output_tokens = output_tokens
        self.state = "new"
        self.arrived_s = 0.0
        self.first_token_s: float | None = None
        self.finished_s: float | None = None
        self.cached_tokens: int | None = None
        self.preemptions = 0
        self.token_times: list[float] = []
        self.sampled = 0
        """Tokens of the answer that are made by the steps planned so far."""
        self.computed = 0
        """Tokens with keys and values after the steps planned so far."""
        self.blocks: list[Block] = []
        self.hashed = 0
        self.goal = 0
        """Tokens it was admitted with: computed beyond them, it decodes."""

    @property
    def known(self) -> int:
        """Tokens that there are to compute."""
        return self.prompt_tokens + self.sampled

    @property
    def complete(self) -> bool:
        return self.sampled == self.output_tokens


class Block:
    """A block of memory: what is in it, and how many use it."""

    def __init__(self) -> None:
        self.hash: int | None = None
        self.users = 0


class Pool:
    """All blocks; free ones in the order in which they will be taken."""

    def __init__(self, blocks: int, size: int) -> None:
        self.size = size
        self.free = [Block() for _ in range(blocks)]
        self.cached: dict[int, list[Block]] = {}
        self._numbers: dict[object, int] = {}

    def hash_of(self, text: Sequence[object], block: int) -> int:
        """A number for the text up to the end of a block."""
        beginning = tuple(text[: (block + 1) * self.size])
        return self._numbers.setdefault(beginning, len(self._numbers))

    def find(self, text: Sequence[object], tokens: int) -> list[Block]:
        found: list[Block] = []
        for i in range((tokens - 1) // self.size):
            same = self.cached.get(self.hash_of(text, i))
            if not same:
                break
            found.append(same[0])
        return found

    def use(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            if block.users == 0:
                self.free.remove(block)
            block.users += 1

    def new(self, count: int) -> list[Block]:
        taken, self.free = self.free[:count], self.free[count:]
        for block in taken:
            if block.hash is not None:
                self.cached[block.hash].remove(block)
                block.hash = None
        for block in taken:
            block.users += 1
        return taken

    def give_back(self, blocks: Sequence[Block]) -> None:
        for block in reversed(blocks):
            block.users -= 1
            assert block.users >= 0
            if block.users == 0:
                self.free.append(block)

    def publish(self, block: Block, text: Sequence[object], number: int) -> None:
        block.hash = self.hash_of(text, number)
        self.cached.setdefault(block.hash, []).append(block)


class Step:
    def __init__(self, start_s: float, end_s: float) -> None:
        self.start_s = start_s
        self.end_s = end_s
        self.samples: list[Request] = []

    def move(self, start_s: float) -> None:
        self.start_s, self.end_s = start_s, start_s + self.end_s - self.start_s


def _nobody(request: Request) -> None:
    pass


class NaiveEngine:
    """Takes the same calls as `Engine`, with `Request` for `Sequence`."""

    def __init__(self, profile: Profile, on_end: Callable[[Request], None] = _nobody) -> None:
        self.profile = profile
        self.on_end = on_end
        self.slowness = 1.0
        self.stalled_until_s = -math.inf
        self.numbers = 0
        self.steps = 0
        self.busy = False
        self.reset()

    def reset(self) -> None:
        self.pool = Pool(self.profile.kv_blocks, self.profile.block_tokens)
        self.incoming: list[tuple[float, int, Request]] = []
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.aborted: list[Request] = []
        self.current: Step | None = None
        self.following: Step | None = None
        self.plan_at_s = math.inf

    # --- calls

    def submit(self, request: Request, now_s: float) -> None:
        self.advance(now_s)
        request.state, request.arrived_s = "waiting", now_s
        profile = self.profile
        ready_s = now_s + profile.request_s + profile.request_token_s * request.prompt_tokens
        self.numbers += 1
        self.incoming.append((ready_s, self.numbers, request))
        self.incoming.sort(key=lambda entry: entry[:2])

    def abort(self, request: Request, now_s: float) -> None:
        self.advance(now_s)
        if request in self.running:
            if request not in self.aborted:
                self.aborted.append(request)
        elif request.state == "waiting":
            request.state = "aborted"
            self.waiting = [each for each in self.waiting if each is not request]
        self.look_again(now_s)

    def slow_down(self, factor: float, now_s: float) -> None:
        self.advance(now_s)
        self.slowness = factor

    def stall(self, until_s: float, now_s: float) -> None:
        self.advance(now_s)
        self.stalled_until_s = until_s
        if self.current is None:
            return
        if self.current.start_s > now_s:
            self.current.move(max(now_s, until_s))
            self.begin(self.current)
        elif self.following is not None:
            self.following.move(max(self.current.end_s, until_s))

    def crash(self, restart_s: float, now_s: float) -> list[Request]:
        self.advance(now_s)
        everyone = [*self.running, *self.waiting, *(entry[2] for entry in self.incoming)]
        lost = [r for r in everyone if r.state != "aborted" and r not in self.aborted]
        for request in lost:
            request.state = "lost"
        for request in self.aborted:
            request.state = "aborted"
        self.reset()
        self.stalled_until_s = now_s + restart_s
        return lost

    def advance(self, now_s: float) -> None:
        if self.busy:
            return
        self.busy = True
        while (at_s := self.next_s()) <= now_s:
            if self.current is not None and self.current.end_s <= at_s:
                self.end_step(self.current)
            elif self.incoming and self.incoming[0][0] <= at_s:
                request = self.incoming.pop(0)[2]
                if request.state != "aborted":
                    self.waiting.append(request)
                    self.look_again(at_s)
            else:
                self.plan_next(at_s)
        self.busy = False

    def next_s(self) -> float:
        end_s = math.inf if self.current is None else self.current.end_s
        ready_s = self.incoming[0][0] if self.incoming else math.inf
        return min(self.plan_at_s, end_s, ready_s)

    # --- the loop

    def look_again(self, now_s: float) -> None:
        """Something changed: plan, if the loop is at a place where it would."""
        if self.current is None:
            self.plan_at_s = now_s
        elif self.profile.async_scheduling and self.following is None:
            self.plan_at_s = min(self.plan_at_s, max(now_s, self.current.start_s))

    def begin(self, step: Step) -> None:
        self.current = step
        self.plan_at_s = step.start_s if self.profile.async_scheduling else math.inf

    def plan_next(self, now_s: float) -> None:
        self.plan_at_s = math.inf
        if self.current is None:
            step = self.plan(now_s)
            if step is not None:
                self.begin(step)
        else:
            self.following = self.plan(self.current.end_s)

    def end_step(self, step: Step) -> None:
        now_s = step.end_s
        self.steps += 1
        self.current = None
        self.plan_at_s = now_s
        if self.following is not None:
            step_after, self.following = self.following, None
            self.begin(step_after)
        for request in step.samples:
            request.token_times.append(now_s)
            gone = request.state == "aborted" or request in self.aborted
            if request.first_token_s is None and not gone:
                request.first_token_s = now_s
        for request in step.samples:
            if len(request.token_times) == request.output_tokens and request in self.running:
                self.finish(request, now_s)

    def finish(self, request: Request, now_s: float) -> None:
        self.running.remove(request)
        self.pool.give_back(request.blocks)
        if request in self.aborted:
            self.aborted.remove(request)
            request.state = "aborted"
            return
        request.state, request.finished_s = "finished", now_s
        self.on_end(request)

    # --- the scheduler

    def plan(self, start_s: float) -> Step | None:
        for request in self.aborted:
            self.running.remove(request)
            self.pool.give_back(request.blocks)
            request.state = "aborted"
        self.aborted = []
        work, preempted = self.plan_running()
        if not preempted:
            self.admit(work)
        if not work:
            return None
        return self.make_step(max(start_s, self.stalled_until_s), work)

    def plan_running(self) -> tuple[list[tuple[Request, int]], bool]:
        budget, preempted = self.profile.max_num_batched_tokens, False
        work: list[tuple[Request, int]] = []
        for request in list(self.running):
            tokens = min(request.known - request.computed, budget)
            if request not in self.running or request.complete or tokens == 0:
                continue
            while not self.allocate(request, tokens):
                preempted = True
                if self.preempt() is request:
                    return work, True
            work.append((request, tokens))
            budget -= tokens
        return work, preempted

    def admit(self, work: list[tuple[Request, int]]) -> None:
        profile, pool = self.profile, self.pool
        budget = profile.max_num_batched_tokens - sum(tokens for _, tokens in work)
        while self.waiting and budget > 0 and len(self.running) < profile.max_num_seqs:
            request = self.waiting[0]
            found = pool.find(request.text, request.known)
            cached = len(found) * profile.block_tokens
            tokens = min(request.known - cached, budget)
            target = request.known if profile.reserve_prompt else cached + tokens
            blocks = -(-target // profile.block_tokens) - len(found)
            if blocks + sum(block.users == 0 for block in found) > len(pool.free):
                return
            self.waiting.pop(0)
            pool.use(found)
            request.blocks, request.computed, request.hashed = found, cached, len(found)
            if request.cached_tokens is None:
                request.cached_tokens = cached
            request.state, request.goal = "running", request.known
            assert self.allocate(request, tokens)
            self.running.append(request)
            work.append((request, tokens))
            budget -= tokens

    def allocate(self, request: Request, tokens: int) -> bool:
        """Blocks for more tokens. Whole blocks can be found by others from now on."""
        size = self.profile.block_tokens
        blocks = -(-(request.computed + tokens) // size) - len(request.blocks)
        if blocks > len(self.pool.free):
            return False
        request.blocks = request.blocks + self.pool.new(max(0, blocks))
        while request.hashed < (request.computed + tokens) // size:
            self.pool.publish(request.blocks[request.hashed], request.text, request.hashed)
            request.hashed += 1
        return True

    def preempt(self) -> Request:
        request = next(each for each in reversed(self.running) if not each.complete)
        self.running.remove(request)
        self.pool.give_back(request.blocks)
        request.blocks, request.computed, request.hashed = [], 0, 0
        request.preemptions += 1
        request.state = "waiting"
        self.waiting.insert(0, request)
        return request

    def make_step(self, start_s: float, work: list[tuple[Request, int]]) -> Step:
        tokens, context, attended = 0, 0.0, 0.0
        samples = []
        for request, count in work:
            tokens += count
            if request.computed >= request.goal:
                context += request.known
            else:
                attended += sum(request.computed + i + 0.5 for i in range(count))
            request.computed += count
            if request.computed == request.known:
                request.sampled += 1
                samples.append(request)
        step_s = self.slowness * self.step_s(tokens, len(work), context, attended)
        step = Step(start_s, start_s + step_s)
        step.samples = samples
        return step

    def step_s(self, tokens: int, sequences: int, context: float, attended: float) -> float:
        p = self.profile
        weights_s = p.weights_s + p.expert_weights_s * (1 - (1 - p.expert_share) ** tokens)
        linear_s = math.sqrt(weights_s**2 + (p.token_s * tokens) ** 2)
        fixed_s = p.step_s + p.sequence_s * sequences + p.link_s * tokens
        return fixed_s + linear_s + p.attention_s * attended + p.context_s * context
