"""The steps of the GPU benchmark, in order of importance."""

from functools import partial

from gpu_steps import outputs, speed, training
from gpu_steps.core import Step

ATTENTION = ("sda_resnet86", "sda_pyconv86")
STEPS = (
    Step("card", "Measure the rates of memory and of matrix products", 0.5, outputs.measure_card),
    Step("depth-attention", "Compare the errors of depth attention with those of its PyTorch code", 1,
         outputs.compare_depth_attention, timed=False),
    Step("logits", "Compare the logits of all networks with those on the CPU", 3.5, outputs.compare_logits,
         timed=False),
    Step("detector-outputs", "Compare the raw outputs of all detectors with those on the CPU", 3.5,
         outputs.compare_detectors, timed=False),
    Step("resume", "Kill a deterministic training in mixed precision, and resume it", 3.5,
         training.resume_killed, timed=False),
    Step("demo", "Train with the recipe demo to an accuracy far above chance", 4, training.learn_to_classify,
         timed=False),
    Step("detector", "Train a detector on generated images to an AP far above zero", 4,
         training.learn_to_detect, timed=False),
    *(Step(f"attention-{name}", f"Time training of {name} beside the plain formulation", 1.5,
           partial(speed.attention, name, False)) for name in ATTENTION),
    Step("stages", "Time depth attention alone beside copying its maps", 1.5,
         partial(speed.stages, ATTENTION[0])),
    *(Step(f"compiled-{name}", f"Time compiled training of {name} in bf16 beside the plain formulation", 3.5,
           partial(speed.attention, name, True)) for name in ATTENTION),
    Step("bench", "Time the networks of the classification suite", 3.5, speed.bench),
    Step("evaluation", "Time eval beside a loop like timm's, in float32", 3,
         partial(speed.evaluation, "fp32")),
    Step("training-input", "Time the training input, and find where the GPU waits for it", 2.5,
         speed.training_input),
    Step("evaluation-bf16", "Time eval beside a loop like timm's, in bf16", 2.5,
         partial(speed.evaluation, "bf16")),
    Step("graphs", "Time small steps in CUDA graphs", 1, speed.graphs),
    Step("depth-scale", "Run the study depth-scale as far as the time allows", 120, training.run_study,
         least_minutes=4),
)  # fmt: skip
