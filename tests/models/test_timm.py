"""Any model of timm by name."""

import socket

import pytest
import torch
from commands import TINY, raises_one_line
from small_models import NO_TIMM, images, on_meta
from torch import nn

import fmbench
from fmbench.core.errors import ConfigError
from fmbench.models.timm import Timm


def test_without_the_package_a_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("fmbench.core.errors.find_spec", lambda name: None)
    said = "model=timm: timm is not installed; pip install 'timm>=1' brings it"
    raises_one_line(Timm, ConfigError, said)


@pytest.mark.timm
class TestTimm:
    """With the package."""

    timm = None

    @pytest.fixture(autouse=True)
    def _no_network(self, monkeypatch):
        self.timm = pytest.importorskip("timm", reason=NO_TIMM)

        def connect(*_):
            raise AssertionError("connects")

        monkeypatch.setattr(socket.socket, "connect", connect)

    @pytest.mark.parametrize(("name", "given"), [
        ("resnet18", {}),
        ("vit_tiny_patch16_224", {"img_size": (28, 28)}),
    ])  # fmt: skip
    def test_it_is_the_model_that_timm_builds(self, name, given):
        torch.manual_seed(0)
        theirs = self.timm.create_model(name, num_classes=10, in_chans=1, **given)
        torch.manual_seed(0)
        model = Timm(name=name)
        counts = [sum(p.numel() for p in one.parameters()) for one in (model, theirs)]
        assert counts[0] == counts[1]
        with torch.no_grad():
            assert torch.equal(model.eval()(images()), theirs.eval()(images()))

    @pytest.mark.parametrize("name", [
        "resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k", "hf_hub:timm/resnet18",
        "local-dir:/tmp/resnet18", "RESNET18",
    ])  # fmt: skip
    def test_a_name_that_brings_weights_or_is_unknown_is_refused(self, name):
        parts = f"model.name={name} is not one of timm's", "the closest are resnet18, "
        raises_one_line(lambda: on_meta(Timm, name=name), ConfigError, *parts)

    @pytest.mark.slow
    def test_a_model_that_is_too_deep_says_the_size_that_works(self):
        with pytest.raises(ConfigError, match=r"28 x 28; the smallest .* model\.upsample=32$"):
            Timm(name="convnext_atto")
        model = on_meta(Timm, name="convnext_atto", upsample=32)
        assert isinstance(model.upsample, nn.Upsample)
        assert model(images(2).to("meta")).shape == (2, 10)

    @pytest.mark.slow
    def test_a_run_trains_it_and_keeps_it_and_downloads_nothing(self, tmp_path):
        given = [*TINY, "model=timm", "model.name=test_resnet", "epochs=1", "batch_size=50"]
        kept = ["keep_model=true", "precision=fp32", f"hydra.run.dir={tmp_path / 'run'}"]
        record = fmbench.run([*given, *kept])
        assert (record.model, record.parameters) == ("timm/test_resnet", 373_370)
        assert record.source is None
        model = fmbench.load_model(tmp_path / "run")
        assert sum(p.numel() for p in model.parameters()) == record.parameters
        for weights in ("pretrained=true", "checkpoint_path=x.pth"):
            with pytest.raises(ConfigError, match=weights.partition("=")[0]):
                fmbench.run([*given, f"+model.{weights}", f"hydra.run.dir={tmp_path / 'no'}"])
