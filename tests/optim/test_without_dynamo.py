"""Runs start without the compiler, and whatever asks for it gets the real one."""

from commands import TINY, python

CHILD = f"""
import sys
import fmbench
from fmbench.optim import without_dynamo

made = fmbench.run([*{TINY}, "deterministic=true", "hydra.run.dir=run"])
assert made.status == "completed"
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))]

import torch

with without_dynamo.without_dynamo():
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.5)
    weight.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert weight.tolist() == [0.5] * 3
    stand_in = sys.modules["torch._dynamo"]
    assert not hasattr(stand_in, "__file__")
    kept = [f for f in stand_in._disabled if hasattr(f, "__dynamo_disable")]
    assert kept

    import torch._dynamo.config  # as torch.compile does

    assert sys.modules["torch._dynamo"] is torch._dynamo is not stand_in
    assert torch._dynamo.graph_break is not stand_in.graph_break
    assert not [f for f in kept if hasattr(f, "__dynamo_disable")]
    weight.sum().backward()
    optimizer.step()
    assert weight.tolist() == [0] * 3
assert sys.modules["torch._dynamo"] is torch._dynamo
"""


def test_a_run_does_not_load_the_compiler_and_what_needs_it_gets_it(tmp_path):
    ended = python("-c", CHILD, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
