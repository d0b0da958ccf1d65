"""Training over two processes: the weights that one process reaches, because gradients are means over all ranks."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from opteq_cvx.train.metrics import read_metrics

SCRIPT = """
import sys
from pathlib import Path

import torch

import opteq_cvx as oc
from opteq_cvx.train import Classifier, Cosine, Data, DeviceOptions, Split, TrainOptions, train
from problems.opteq_unit import declare

devices, out = int(sys.argv[1]), Path(sys.argv[2])
g = torch.Generator().manual_seed(1)
y = torch.arange(72) % 3
x = torch.randn(72, 6, generator=g) + 2.0 * torch.eye(3)[y].repeat(1, 2)
data = Data("clouds", Split(x, y), Split(x[:23] + 0.1, y[:23]), 3)
torch.manual_seed(0)
layer = oc.compile(*declare(inputs=6, hidden=12), tolerance=1e-6)
model = Classifier(layer, features=6, classes=3)
options = TrainOptions(epochs=2, batch_size=24, schedule=Cosine(peak=0.01), seed=3)
where = DeviceOptions(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto")
train(model, data, out, options=options, devices=where, progress=False)
ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
sys.stdout.write(f"ranks {ranks}\\n")  # in one piece: both processes write to one pipe
"""


def environment(root: Path) -> dict[str, str]:
    """This one's, with the repository on the path and one thread for each process."""
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


def trained(devices: int, folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Weights of the checkpoint, and the last row of the metrics, of a run in processes of its own."""
    script, out = folder / "script.py", folder / str(devices)
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(script), str(devices), str(out)]
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"ranks {devices}" in done.stdout
    kept = load_file(out / "checkpoint.safetensors")
    return {k: v for k, v in kept.items() if k.startswith("model.")}, read_metrics(out / "metrics.jsonl")[-1]


def test_two_processes_reach_the_weights_of_one(tmp_path: Path) -> None:
    (one, alone), (two, together) = trained(1, tmp_path), trained(2, tmp_path)
    assert one.keys() == two.keys()
    assert len(one) >= 4
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-5, rtol=1e-4)
    assert together["test_accuracy"] == alone["test_accuracy"]
    for measure in ("train_loss", "test_loss"):
        assert abs(together[measure] - alone[measure]) <= 1e-4
