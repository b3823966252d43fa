"""The state and the next step that each probe derives from given facts."""

import math
import resource
import tempfile
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
import torchvision
from packaging.requirements import Requirement
from PIL import Image
from torchvision.transforms import functional

from sdabench.records.counts import stored_counts
from sdabench.tools.doctor import decoder, devices, numerics, requirements, storage
from sdabench.tools.doctor.devices import Device
from sdabench.tools.doctor.diagnosis import diagnose, likely_causes
from sdabench.tools.doctor.numerics import Settings
from sdabench.tools.doctor.probe import Probe
from sdabench.tools.doctor.view import two_standard_errors_pct
from sdabench.training.precision import strict_fp32
from tests.helpers.paths import CHECKOUT

GB = 10**9
H100 = Device("cuda:0", "NVIDIA H100", (9, 0), 80 * GB, 85 * GB, difference=4e-7)
BUILDS = ["sm_75", "sm_80", "sm_90", "compute_90"]
CPU = Settings(False, False, True, "highest", False, False, False, {})
GPU = replace(CPU, cuda=True)


def test_diagnosis_runs_each_probe_once_without_side_effects():
    before = (torch.get_rng_state(), torch.backends.cudnn.allow_tf32, set(CHECKOUT.iterdir()))
    diagnosis = diagnose()
    after = (torch.get_rng_state(), torch.backends.cudnn.allow_tf32, set(CHECKOUT.iterdir()))
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    names = [probe.name for probe in diagnosis.probes]
    assert len(names) == len(set(names))
    assert {"torch", "torchvision", "Pillow", "CPU", "memory", "CUDA", "JPEG decoder", "cache"} <= set(names)
    assert all(probe.value for probe in diagnosis.probes)
    assert all(probe.consequence for probe in diagnosis.probes if probe.state != "ok")
    assert all(probe.next_step for probe in diagnosis.probes if probe.state in ("warning", "problem"))


class TestVersions:
    @pytest.mark.parametrize(
        ("found", "state"),
        [
            ("2.6", "ok"), ("2.6.0", "ok"), ("2.10.1+cu132", "ok"), ("2.6.0a0+git1234", "ok"),
            ("2.5.1", "warning"), ("1.13", "warning"), (None, "problem"),
        ],
    )  # fmt: skip
    def test_package_is_compared_with_its_minimum(self, found, state):
        probe = requirements.probe_package("torch", found, Requirement("torch>=2.6"))
        assert probe.state == state
        assert probe.next_step == ("" if state == "ok" else "pip install --upgrade 'torch>=2.6'")

    @pytest.mark.parametrize(
        ("found", "required", "satisfied"),
        [
            ("13", ">=13.0.0", True), ("0.1.5.post20221221", ">=0.1.5.post20221221", True),
            ("0.1.5", ">=0.1.5.post20221221", False), ("12.1.1.post0 (Pillow-SIMD)", ">=10", True),
            ("unknown", ">=1", False),
        ],
    )  # fmt: skip
    def test_versions_satisfy_requirements(self, found, required, satisfied):
        assert requirements.satisfies(found, Requirement(f"package{required}")) is satisfied

    def test_requirements_come_from_the_checkout(self):
        declared = {each.name: each for each in requirements.declared_requirements()}
        assert declared["torch"] == Requirement("torch>=2.6")
        assert declared["fvcore"].specifier == ">=0.1.5.post20221221"
        assert not requirements.is_optional(declared["fvcore"])
        assert requirements.is_optional(declared["faster-coco-eval"])

    def test_installed_requirements_come_from_metadata(self, monkeypatch):
        monkeypatch.setattr(requirements, "checkout_dir", lambda: None)
        texts = ["torch>=2.6", "tensorboard>=2.14; extra == 'tensorboard'"]
        monkeypatch.setattr(requirements, "requires", lambda name: texts)
        needed, optional = requirements.declared_requirements()
        assert [str(needed.specifier), str(optional.specifier)] == [">=2.6", ">=2.14"]
        assert [requirements.is_optional(needed), requirements.is_optional(optional)] == [False, True]

    def test_missing_package_gets_its_own_line(self, monkeypatch):
        needed = [Requirement("no-such-package>=3"), Requirement("no-such-extra; extra == 'any'")]
        monkeypatch.setattr(requirements, "declared_requirements", lambda: needed)
        found = {probe.name: probe.state for probe in requirements.probes({})}
        assert found["no-such-package"] == "problem"
        assert "no-such-extra" not in found

    def test_pillow_simd_is_named_even_if_pillow_is_installed(self, monkeypatch):
        assert requirements.imported_version("Pillow") == version("Pillow")
        monkeypatch.setattr(Image, "__version__", "12.1.1.post0")
        monkeypatch.setattr(
            requirements, "installed_version", {"Pillow": "13.0.0", "Pillow-SIMD": "12.1.1.post0"}.get
        )
        assert requirements.imported_version("Pillow") == "12.1.1.post0 (Pillow-SIMD)"

    def test_failed_import_outranks_old_version(self, monkeypatch):
        monkeypatch.setattr(requirements, "declared_requirements", lambda: [Requirement("pycocotools>=99")])
        [old] = [probe for probe in requirements.probes({}) if probe.name == "pycocotools"]
        [bad] = [
            probe for probe in requirements.probes({"pycocotools": "no dtype"}) if probe.name == "pycocotools"
        ]
        assert (old.state, bad.state) == ("warning", "problem")
        assert bad.value.endswith("but the import fails: no dtype")

    def test_torchvision_operators_are_called(self, monkeypatch):
        found = Probe("torchvision", "ok", torchvision.__version__)
        good = requirements.probe_operators(found)
        assert (good.state, good.value) == ("ok", f"{torchvision.__version__}, compiled operators work")

        def fails(*arguments, **options):
            raise RuntimeError("operator torchvision::nms does not exist\nin this build")

        monkeypatch.setattr("torchvision.ops.nms", fails)
        bad = requirements.probe_operators(found)
        assert bad.state == "problem"
        assert "torchvision::nms does not exist in this build" in bad.value
        monkeypatch.setattr("torchvision.ops.nms", lambda *arguments, **options: torch.tensor([0]))
        assert "selects [0] of two" in requirements.probe_operators(found).value

    def test_uncommitted_changes_are_a_note(self):
        assert requirements.probe_sdabench(None).value.endswith("installed")
        clean, dirty = requirements.probe_sdabench("a" * 40), requirements.probe_sdabench("a" * 40 + "-dirty")
        assert (clean.state, dirty.state) == ("ok", "note")
        assert dirty.value == f"{clean.value}, with uncommitted changes"


class TestDevices:
    def test_working_device_is_ok(self):
        probe = devices.probe_device(H100, BUILDS)
        assert probe.state == "ok"
        assert "80.0 GB of 85.0 GB free, compute capability 9.0, bf16 in hardware" in probe.value
        assert "no bf16 in hardware" in devices.probe_device(replace(H100, capability=(7, 5)), BUILDS).value

    @pytest.mark.parametrize(
        ("changes", "state", "words"),
        [
            ({"difference": 3e-4}, "warning", "less accurate than float32"),  # as with TF32, see below
            ({"difference": 0.3}, "problem", "results are wrong"),
            ({"difference": math.nan}, "problem", "results are wrong"),
            ({"difference": None, "error": "an illegal access"}, "problem", "fails: an illegal access"),
            ({"capability": (6, 1)}, "problem", "built only for sm_75, sm_80"),
            ({"free_bytes": 10 * GB}, "note", "Another process uses it"),
        ],
    )
    def test_device_defect_sets_state_and_consequence(self, changes, state, words):
        probe = devices.probe_device(replace(H100, **changes), BUILDS)
        assert (probe.state, probe.affects_accuracy) == (
            state,
            "difference" in changes and "error" not in changes,
        )
        assert words in probe.consequence

    def test_missing_device_is_a_problem(self):
        device = devices.measure_device(torch.device("cuda:99"))
        assert device.error
        probe = devices.probe_device(device, BUILDS)
        assert (probe.name, probe.state, probe.value) == ("cuda:99", "problem", "cuda:99")

    @pytest.mark.parametrize(
        ("capability", "builds", "built"),
        [
            ((8, 0), ["sm_80"], True), ((8, 6), ["sm_80"], True), ((8, 0), ["sm_86"], False),
            ((9, 0), ["sm_80"], False), ((9, 0), ["compute_80"], True), ((7, 5), ["compute_80"], False),
            ((9, 0), ["sm_90a"], True), ((9, 1), ["sm_90a"], False), ((12, 0), ["sm_120"], True),
            ((10, 3), ["sm_100f"], True), ((9, 0), ["gfx90a"], True), ((9, 0), [], False),
        ],
    )  # fmt: skip
    def test_is_built_for_capability(self, capability, builds, built):
        assert devices.is_built_for(capability, builds) is built

    def test_difference_separates_float32_from_lower_precision(self, monkeypatch):
        """Round the operands on the CPU as TF32 (10 bits of mantissa) and bf16 (7 bits) do."""
        cpu = torch.device("cpu")
        assert 0 < devices.difference_from_cpu(cpu) < devices.FLOAT32_TOLERANCE / 10
        convolve = devices.F.conv2d
        for bits in (10, 7):

            def reduced_precision(images, kernels, bits=bits):
                if images.dtype == torch.float32:
                    images, kernels = rounded(images, bits), rounded(kernels, bits)
                return convolve(images, kernels)

            monkeypatch.setattr(devices.F, "conv2d", reduced_precision)
            assert 2 * devices.FLOAT32_TOLERANCE < devices.difference_from_cpu(cpu) < devices.WRONG / 2
        monkeypatch.setattr(devices.F, "conv2d", lambda images, kernels: convolve(images, kernels) * math.nan)
        assert math.isnan(devices.difference_from_cpu(cpu))

    def test_meta_device_is_an_error(self):
        with pytest.raises(RuntimeError):
            devices.difference_from_cpu(torch.device("meta"))

    def test_no_cuda_is_a_note_and_unused_driver_a_warning(self):
        assert devices.probe_without_cuda("13.0", None, str).state == "note"
        for built_for, words in [(None, "is a CPU build"), ("13.0", "reports: driver too old")]:
            probe = devices.probe_without_cuda(built_for, "550.54.14", lambda: "driver too old")
            assert probe.state == "warning"
            assert words in probe.consequence

    @pytest.mark.parametrize("kind", ["UNIX x86_64 Kernel Module", "UNIX Open Kernel Module for x86_64"])
    def test_driver_version(self, tmp_path, kind):
        path = tmp_path / "version"
        assert devices.driver_version(path) is None
        path.write_text(
            f"NVRM version: NVIDIA {kind}  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version: 12\n"
        )
        assert devices.driver_version(path) == "550.54.14"

    @pytest.mark.parametrize(("limit", "state"), [(None, "ok"), (8.0, "ok"), (1.5, "note"), (0.5, "note")])
    def test_container_cpu_limit_is_a_note(self, limit, state):
        probe = devices.probe_cpu(8, 64, limit, threads=8)
        assert probe.state == state
        assert probe.value.startswith("8 of 64 cores, 8 torch threads")
        if state == "note":
            assert "--workers 1, and" in probe.next_step

    @pytest.mark.parametrize(("available", "state"), [(4 * GB, "ok"), (3 * GB - 1, "warning"), (None, "ok")])
    def test_low_memory_is_a_warning(self, available, state):
        assert devices.probe_memory(16 * GB, available, needed=3 * GB).state == state

    def test_largest_peak_comes_from_stored_records(self):
        assert 2 * GB < devices.largest_peak() < 4 * GB


def rounded(values, bits):
    """Round float32 values to a mantissa of fewer bits, to nearest."""
    dropped_bits = 23 - bits
    integers = values.view(torch.int32) + (1 << (dropped_bits - 1))
    return (integers & ~((1 << dropped_bits) - 1)).view(torch.float32)


class TestArithmetic:
    def test_default_cpu_settings_are_ok(self):
        probe_functions = (
            numerics.probe_matmul,
            numerics.probe_convolutions,
            numerics.probe_determinism,
            numerics.probe_variables,
        )
        assert [each(CPU).state for each in probe_functions] == ["ok"] * 4

    def test_tf32_convolutions_are_a_note(self):
        probe = numerics.probe_convolutions(GPU)
        assert (probe.state, probe.affects_accuracy) == ("note", True)
        assert numerics.probe_convolutions(replace(GPU, tf32_convolutions=False)).state == "ok"
        assert "sdabench turns it off while it measures" in probe.value
        with strict_fp32(torch.device("cuda")):  # turns TF32 off, as the value of the probe says
            assert Settings().tf32_convolutions is False
        assert Settings().tf32_convolutions is True

    @pytest.mark.parametrize("changes", [{"tf32_matmul": True}, {"matmul_precision": "high"}])
    def test_tf32_matmul_is_a_warning(self, changes):
        probe = numerics.probe_matmul(replace(GPU, **changes))
        assert (probe.state, probe.affects_accuracy) == ("warning", True)

    def test_gpu_determinism_needs_both_settings(self):
        assert numerics.probe_determinism(GPU).state == "note"
        configured = replace(GPU, deterministic_algorithms=True)
        assert numerics.probe_determinism(configured).state == "note"  # cuBLAS needs its own setting
        configured = replace(configured, environment={"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
        assert numerics.probe_determinism(configured).state == "ok"
        assert (
            "deterministic algorithms on, CUBLAS_WORKSPACE_CONFIG :4096:8"
            in numerics.probe_determinism(configured).value
        )

    @pytest.mark.parametrize(
        ("environment", "state"),
        [
            ({"HOME": "/root", "MKL_CBWR": ""}, "ok"),
            ({"OMP_NUM_THREADS": "4"}, "ok"),
            ({"MKL_CBWR": "AVX2"}, "note"),
            ({"ATEN_CPU_CAPABILITY": "default"}, "note"),
            ({"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, "note"),
            ({"NVIDIA_TF32_OVERRIDE": "0"}, "note"),
            ({"NVIDIA_TF32_OVERRIDE": "1"}, "warning"),
            ({"ONEDNN_DEFAULT_FPMATH_MODE": "STRICT"}, "note"),
            ({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, "warning"),
        ],
    )
    def test_environment_variables(self, environment, state):
        probe = numerics.probe_variables(replace(CPU, environment=environment))
        assert probe.state == state
        assert probe.affects_accuracy is (state == "warning")
        assert "HOME" not in probe.value


class TestDecoder:
    def test_jpeg_is_small_with_subsampled_chroma(self):
        assert len(decoder.JPEG) < 1000
        assert b"\xff\xc0\x00\x11\x08\x00\x1d\x00\x25\x03\x01\x22" in decoder.JPEG  # 29 x 37, 4:2:0

    @pytest.mark.skipif(not hasattr(torchvision.io, "decode_jpeg"), reason="it is to leave torchvision")
    @pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
    def test_expected_pixels_match_torchvision_decoder(self):
        data = torch.frombuffer(bytearray(decoder.JPEG), dtype=torch.uint8)
        pixels = torchvision.io.decode_jpeg(data, mode=torchvision.io.ImageReadMode.RGB)
        rows = pixels.permute(1, 2, 0).contiguous().numpy().tobytes()
        assert decoder.sha256(rows).hexdigest() == decoder.JPEG_PIXELS

    def test_decoder_and_resizing_give_expected_pixels(self):
        assert [probe.state for probe in decoder.probes()] == ["ok", "ok"]

    def test_resizing_matches_evaluation(self, monkeypatch):
        def resize(image, size, resample):
            assert resample == Image.Resampling.BILINEAR
            return functional.resize(image, [size[1], size[0]])

        pillow_resize = Image.Image.resize
        calls = []

        def first_by_torchvision(image, size, resample=None, *rest):
            calls.append(size)
            return (
                resize(image, size, resample)
                if len(calls) == 1
                else pillow_resize(image, size, resample, *rest)
            )

        monkeypatch.setattr(Image.Image, "resize", first_by_torchvision)
        assert decoder.resized_digest() == decoder.RESIZED_PIXELS
        assert calls == [(23, 17), (23, 17)]

    def test_different_pixels_are_a_warning(self, monkeypatch):
        for probe in (decoder.probe_decoder("0" * 64), decoder.probe_resizing("0" * 64)):
            assert (probe.state, probe.affects_accuracy) == ("warning", True)
            assert "pixels of a test image differ" in probe.value
        monkeypatch.setattr(decoder.features, "version", {"jpg": "9.5"}.get)
        assert "libjpeg 9.5, not libjpeg-turbo" in decoder.probe_decoder("0" * 64).value
        monkeypatch.setattr(decoder.features, "check", lambda name: False)
        assert decoder.probe_decoder("decoder jpeg not available").state == "problem"

    def test_pillow_without_jpeg_is_reported(self, monkeypatch):
        def fails(file):
            raise OSError("decoder jpeg not available")

        monkeypatch.setattr(decoder.Image, "open", fails)
        assert decoder.decoded_digest() == "decoder jpeg not available"


class TestStorage:
    def test_missing_folder_is_not_created(self, tmp_path):
        probe = storage.probe_folder("output", tmp_path / "a/b", 0, "Name another --output.")
        assert probe.state == "ok"
        assert probe.value.startswith(f"{tmp_path}/a/b, ")
        assert list(tmp_path.iterdir()) == []

    def test_unwritable_folder_is_a_problem(self, tmp_path):
        (tmp_path / "file").write_text("")
        probe = storage.probe_folder("output", tmp_path / "file/runs", 0, "Name another --output.")
        assert (probe.state, probe.next_step) == ("problem", "Name another --output.")
        assert "Not a directory" in probe.value

    def test_nearly_full_disk_is_a_warning(self, tmp_path):
        probe = storage.probe_folder("output", tmp_path, 10**18, "Name another --output.")
        assert probe.state == "warning"
        assert "takes 1,000,000,000.0 GB" in probe.consequence

    def test_training_bytes_cover_the_largest_network(self):
        largest = max(count.params for count in stored_counts().values())
        assert storage.training_bytes() == 12 * largest

    def test_missing_temporary_folder_is_a_problem(self, monkeypatch):
        def fails():
            raise FileNotFoundError("No usable temporary directory found")

        monkeypatch.setattr(tempfile, "gettempdir", fails)
        assert storage.probe_temporary().state == "problem"

    def test_docker_default_shared_memory_is_a_warning(self):
        assert storage.probe_shared_memory(64 * 2**20).state == "warning"
        assert storage.probe_shared_memory(8 * GB).state == "ok"

    @pytest.mark.parametrize(
        ("limit", "state"), [(256, "note"), (1024, "ok"), (resource.RLIM_INFINITY, "ok")]
    )
    def test_open_file_limit(self, limit, state):
        assert storage.probe_open_files(limit).state == state


class TestLikelyCauses:
    def test_likely_causes_are_ordered(self):
        found = [
            Probe("torch", "ok", "2.6"),
            Probe("convolutions", "note", "TF32 on", "less", "look", affects_accuracy=True),
            Probe("resizing", "warning", "other pixels", "flips", "pip", affects_accuracy=True),
            Probe("cuda:1", "problem", "NVIDIA", "wrong", "no", affects_accuracy=True),
            Probe("output", "problem", "full"),
        ]
        causes = [each.cause for each in likely_causes(found)]
        assert [cause.split()[0] for cause in causes] == [
            "The", "Images", "cuda:1:", "Preprocessing", "Mixed", "resizing:", "convolutions:",
        ]  # fmt: skip
        assert len(likely_causes([])) == 4

    def test_chance_variation_is_two_standard_errors(self):
        assert two_standard_errors_pct() == pytest.approx(200 * math.sqrt(0.7876 * 0.2124 / 50_000))
