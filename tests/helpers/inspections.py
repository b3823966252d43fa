"""Make inspections without networks."""

from sdabench.analysis.inspection import BlockWeights, FieldSize, InspectedNetwork, Inspection

SIZES = (0.125, 0.25, 0.5, 0.5, 0.75, None)


def inspected(
    slope: float = 0.0,
    state: str = "trained",
    run: int = 1,
    model: str = "sda_resnet_narrow",
    field_images: int = 20,
) -> InspectedNetwork:
    """Make a network whose attention depth is 0.5 at half of the short side, with a slope per octave.

    The second stage has twice the slope of the first. One image has no object. The radius of the first stage
    has a slope on attention depth of 2 + ``slope``, and no field in the first image.
    """
    octaves = (-2.0, -1.0, 0.0, 0.0, 0.5849625007, 3.0)  # from half of the short side; log2(1.5)
    depths = {
        stage: tuple(0.5 + factor * slope * octave for octave in octaves)
        for stage, factor in (("layer1", 1), ("layer2", 2))
    }
    blocks = [
        BlockWeights(
            stage=stage,
            block=block,
            blocks=2,
            mean=0.4 + 0.2 * block,
            sd=0.01,
            quantiles=(0.1, 0.3, 0.4, 0.6, 0.9),
            largest=0.3 + 0.4 * block,
        )
        for stage in ("layer1", "layer2")
        for block in range(2)
    ]
    own = [0.5 + index / 100 for index in range(field_images + 1)]
    radii = [None, *(2 ** ((2 + slope) * depth) for depth in own[1:])]
    fields = [
        FieldSize(
            stage=stage,
            block=block,
            constant_weights=constant,
            radius=radius,
            areas=(0.01, 0.02, 0.05, 0.4),
            radii=tuple(radii) if (stage, block, constant) == ("layer1", None, True) else (),
            depths=tuple(own) if (stage, block, constant) == ("layer1", None, True) else (),
        )
        for constant in (False, True)
        for stage, block, radius in [
            ("layer1", "0", 4.0),
            ("layer1", "1", 6.0),
            ("layer1", None, 5.0 if constant else 20.0),
            ("layer2", "0", 9.0),
            ("layer2", "1", 15.0),
            ("layer2", None, 12.0 if constant else 24.0),
        ]
    ]
    return InspectedNetwork(
        model=model,
        state=state,
        run=run,
        seed=run,
        weights="random" if state == "untrained" else f"run{run}.safetensors",
        weights_sha256=None,
        digest=f"{model}{state}{run}",
        data="synthetic",
        dataset=None,
        side=64,
        blocks=tuple(blocks),
        sizes=SIZES,
        depths=depths,
        fields=tuple(fields),
        field_images=4,
    )


def two_runs() -> Inspection:
    """Make the inspection of two trainings with slopes of 0.02 and 0.04, untrained both of 0.01."""
    networks = [
        inspected(slope, state, run)
        for run, trained in ((1, 0.02), (2, 0.04))
        for state, slope in (("untrained", 0.01), ("trained", trained))
    ]
    return Inspection(networks=tuple(networks))
