from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from sdabench import create_model
from sdabench.analysis.receptive_fields import ReceptiveField, places_of, receptive_fields


def box_convolutions(count: int, **options: int) -> nn.Sequential:
    """Chain linear 3x3 convolutions of one channel with equal weights."""
    chain = nn.Sequential(*(nn.Conv2d(1, 1, 3, bias=False, **options) for _ in range(count)))
    for parameter in chain.parameters():
        nn.init.constant_(parameter, 1 / 9)
    return chain


def test_chain_of_equal_convolutions_has_the_repeated_convolution_of_a_box():
    chain = box_convolutions(4, padding=1)
    images = torch.randn(2, 1, 21, 21)
    fields = receptive_fields(chain, {str(i): chain[i] for i in range(4)}, [images])
    for i, field in enumerate(fields.values()):
        n = i + 1
        box = np.ones(1)
        for _ in range(n):
            box = np.convolve(box, np.ones(3) / 3)
        expected = np.zeros((21, 21))
        expected[10 - n : 11 + n, 10 - n : 11 + n] = np.outer(box, box)
        np.testing.assert_allclose(field.gradient, expected, atol=1e-7)
        assert field.centroid == pytest.approx((10, 10))
        assert field.radius == pytest.approx(sqrt(2 * n * 2 / 3))  # a box of 3 pixels has the variance 2/3
        assert field.radii == pytest.approx(
            [field.radius] * 2
        )  # a linear network has one field for all images


def test_strided_convolution_widens_the_field_of_what_follows():
    chain = nn.Sequential(*box_convolutions(1, padding=1, stride=2), *box_convolutions(1, padding=1))
    fields = receptive_fields(chain, {"1": chain[1]}, [torch.randn(1, 1, 33, 33)])
    # A box of 3 pixels, and one of 3 positions that are 2 pixels apart: variances 2/3 and 4 * 2/3 per axis.
    assert fields["1"].radius == pytest.approx(sqrt(2 * (2 / 3 + 8 / 3)))
    assert fields["1"].centroid == pytest.approx((16, 16))


def test_shares_of_the_area_are_those_of_squares():
    gradient = np.zeros((9, 9))
    gradient[3:6, 3:6] = [[1, 1, 1], [1, 12, 1], [1, 1, 1]]  # 60 % at the center, all within 3x3
    field = ReceptiveField(gradient)
    assert [field.area(share) for share in (0.2, 0.5, 0.61, 0.99)] == [1 / 81, 1 / 81, 9 / 81, 9 / 81]
    assert field.profile.tolist() == pytest.approx([0.6, 1, 1, 1, 1])


def test_square_is_cut_off_at_the_edges_of_the_image():
    gradient = np.zeros((4, 8))
    gradient[0] = 1  # a row along the upper edge: its centroid is at (0, 3.5), rounded to (0, 4)
    assert ReceptiveField(gradient).area(1.0) == 1.0
    assert ReceptiveField(gradient).area(3 / 8) == 6 / 32


def test_no_effect_gives_no_radius():
    field = ReceptiveField(np.zeros((3, 3)))
    assert np.isnan([field.radius, field.area(0.5), *field.centroid]).all()


def test_channels_of_opposite_effect_do_not_cancel():
    conv = nn.Conv2d(1, 2, 1, bias=False)
    nn.init.constant_(conv.weight[0], 1)
    with torch.no_grad():
        conv.weight[1] = -conv.weight[0]
    images = torch.randn(64, 1, 3, 3)
    field = receptive_fields(nn.Sequential(conv), {"0": conv}, [images])["0"]
    assert 0.5 < field.gradient[1, 1] < 1.5  # two random signs have a mean absolute difference of 1


def test_fields_of_every_block_and_stage_grow_and_leave_the_network_unchanged():
    torch.manual_seed(0)
    network = create_model("sda_resnet50", num_classes=2).eval()
    places = places_of(network)
    assert list(places)[:4] == ["layer1.0", "layer1.1", "layer1.2", "layer1"]
    assert len(places) == 16 + 4
    fields = receptive_fields(network, places_of(network, blocks=False), [torch.randn(1, 3, 64, 64)])
    radii = [field.radius for field in fields.values()]
    assert radii == sorted(radii)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_field_of_a_fused_stage_is_the_image_only_through_its_depth_weights():
    torch.manual_seed(0)
    network = create_model("sda_resnet50", num_classes=2).eval()
    stage, images = {"layer1": network.layer1}, [torch.randn(1, 3, 96, 96)]
    whole = receptive_fields(network, stage, images)["layer1"]
    of_maps = receptive_fields(network, stage, images, constant_weights=True)["layer1"]
    assert (whole.gradient[::48, ::48] > 0).all()
    # Stem 7x7 of stride 2, pool 3x3 of stride 2, three 3x3 of stride 4: 7 + 2 * 2 + 3 * 2 * 4 = 35 pixels.
    assert int((of_maps.gradient > 0).any(axis=0).sum()) == 35


def test_module_that_is_not_called_is_an_error():
    chain = box_convolutions(1)
    with pytest.raises(ValueError, match="other is not called"):
        receptive_fields(chain, {"other": nn.Conv2d(1, 1, 1)}, [torch.randn(1, 1, 9, 9)])
