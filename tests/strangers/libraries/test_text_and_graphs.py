"""BERT of transformers, torch-geometric and chemprop: batches that are no pairs of tensors."""

import pytest
import torch
from chemprop import data as chem
from chemprop import nn as chemnn
from chemprop.models import MPNN
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader as GraphLoader
from torch_geometric.nn import GCNConv, global_mean_pool
from torchmetrics import F1Score
from transformers import BertConfig, BertForSequenceClassification

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from tests.strangers.libraries.data import EPOCHS, T, task_of
from tests.strangers.people import ONE_FIT, QUIET, pipeline
from tests.strangers.witness import check, matrix_by_hand, with_and_without


def texts(task, part):
    """Two classes: whether the task's word stands in the text."""
    generator = torch.Generator().manual_seed(2 * task + (part == "train"))
    words = torch.randint(10, 60, (32 if part == "train" else 21 - 3 * task, 12), generator=generator)
    labels = torch.randint(2, (len(words),), generator=generator)
    words[labels == 1, 3] = 2 + task
    lengths = torch.randint(6, 13, (len(words),), generator=generator)
    mask = (torch.arange(12) < lengths[:, None]).long()
    keys = ("input_ids", "attention_mask", "labels")
    return [dict(zip(keys, one, strict=True)) for one in zip(words * mask, mask, labels, strict=True)]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pipeline
def transformers_bert(callbacks):
    """BERT from a config; batches are dictionaries, the F1 score one torchmetrics object."""

    class Bert(LightningModule):
        def __init__(self):
            super().__init__()
            shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
            self.bert = BertForSequenceClassification(BertConfig(vocab_size=60, num_labels=2, **shape))
            self.f1 = F1Score(task="binary")

        def forward(self, **inputs):
            return self.bert(**inputs)

        def training_step(self, batch, batch_idx):
            return self(**batch).loss

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            outputs = self(**batch)
            self.f1(outputs.logits.argmax(-1), batch["labels"])
            self.log("val_loss", outputs.loss)
            self.log("val_f1", self.f1)

        def train_dataloader(self):
            return DataLoader(texts(task_of(self.trainer), "train"), batch_size=8, shuffle=True)

        def val_dataloader(self):
            return [DataLoader(texts(j, "test"), batch_size=8) for j in range(T)]

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
            warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warmup, "interval": "step"}}

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Bert())


def f1(module, task):
    from sklearn.metrics import f1_score

    rows = texts(task, "test")
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    return f1_score(batch["labels"], module(**batch).logits.argmax(-1), zero_division=0)


def test_bert(folder):
    log = ForgettingLogger("val_f1", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    sparsity = SparsityLogger()
    seen = with_and_without(transformers_bert, [log, sparsity], folder / "habit")
    check(log, matrix_by_hand(seen, seen.at_epochs(1, 3, 5), f1), logged=seen.witness.logged[-1])
    blocks = {name for name in sparsity.values if "activation_sparsity" in sparsity.values[name]}
    assert all(any(f"layer.{i}" in name for name in blocks) for i in range(2)), "GELUs in the blocks are not seen"


def graphs(task, part):
    """Two classes of graphs, by a feature of their nodes."""
    generator = torch.Generator().manual_seed(5 * task + (part == "train"))
    found = []
    for n in range(32 if part == "train" else 23 - 4 * task):
        nodes = int(torch.randint(4, 9, (1,), generator=generator))
        x, label = torch.rand(nodes, 4, generator=generator), n % 2
        x[:, task] += label
        edges = torch.stack([torch.arange(nodes), torch.arange(nodes).roll(1)])
        found.append(Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], 1), y=torch.tensor([label])))
    return found


@pipeline
def torch_geometric_gcn(callbacks):
    """A graph network; batches are `torch_geometric.data.Batch`."""

    class GCN(LightningModule):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2, self.head = GCNConv(4, 16), GCNConv(16, 16), nn.Linear(16, 2)

        def forward(self, x, edge_index, batch):
            x = self.conv2(self.conv1(x, edge_index).relu(), edge_index).relu()
            return self.head(global_mean_pool(x, batch))

        def training_step(self, data, batch_idx):
            return nn.functional.cross_entropy(self(data.x, data.edge_index, data.batch), data.y)

        def validation_step(self, data, batch_idx, dataloader_idx=0):
            predicted = self(data.x, data.edge_index, data.batch).argmax(1)
            self.log("val_acc", (predicted == data.y).float().mean(), batch_size=data.num_graphs)

        def train_dataloader(self):
            return GraphLoader(graphs(task_of(self.trainer), "train"), batch_size=8, shuffle=True)

        def val_dataloader(self):
            return [GraphLoader(graphs(j, "test"), batch_size=8) for j in range(T)]

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.02)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(GCN())


def graph_accuracy(module, task):
    found = graphs(task, "test")
    zeros = [torch.zeros(len(g.x), dtype=torch.long) for g in found]
    right = [int(module(g.x, g.edge_index, z).argmax(1) == g.y) for g, z in zip(found, zeros, strict=True)]
    return sum(right) / len(right)


def test_torch_geometric(folder):
    log = ForgettingLogger("val_acc", epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(torch_geometric_gcn, [log, SparsityLogger()], folder / "habit")
    expected = matrix_by_hand(seen, seen.at_epochs(1, 3, 5), graph_accuracy)
    check(log, expected, logged=seen.witness.logged[-1])


def molecules(task):
    """Chains whose property is a count of the task's element."""
    chains = ["C" * a + "NOS"[task] * b + "C" * c for a in range(1, 5) for b in range(3) for c in range(1, 4)]
    points = [chem.MoleculeDatapoint.from_smi(one, [float(one.count("NOS"[task]))]) for one in chains]
    return points[: 24 - 3 * task], points[24:]


@pipeline
def chemprop_mpnn(callbacks):
    """chemprop as it is: its steps know no `dataloader_idx`, so each task is fitted and validated alone."""
    metrics = [chemnn.metrics.RMSE(), chemnn.metrics.MAE()]
    layers = chemnn.BondMessagePassing(d_h=16), chemnn.MeanAggregation(), chemnn.RegressionFFN(input_dim=16)
    model = MPNN(*layers, metrics=metrics)
    results = []
    for task in range(T):
        train = chem.build_dataloader(chem.MoleculeDataset(molecules(task)[0]), batch_size=8)
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), **QUIET)
        trainer.fit(model, train)
        for seen in range(task + 1):
            callbacks(seen)
            held_out = chem.build_dataloader(chem.MoleculeDataset(molecules(seen)[1]), batch_size=8, shuffle=False)
            results += trainer.test(model, held_out, verbose=False)
    return results


def rmse(module, task):
    loader = chem.build_dataloader(chem.MoleculeDataset(molecules(task)[1]), batch_size=1, shuffle=False)
    squares = [float((module(bmg) - targets) ** 2) for bmg, _, _, targets, *_ in loader]
    return (sum(squares) / len(squares)) ** 0.5


def test_chemprop(folder):
    log = ForgettingLogger("test/rmse", mode="min", pictures=False, verbose=False)

    def callbacks(task):
        log.task = task
        return [log]

    seen = with_and_without(chemprop_mpnn, callbacks, folder / "habit")
    tests = seen.fits("test")
    expected = matrix_by_hand(seen, [tests[0], tests[1], tests[3]], rmse, seen_only=True)
    check(log, expected, mode="min")
