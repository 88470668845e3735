"""The training that all transports repeat in these tests: batch norm, dropout, four shards, a short last batch.

A second one has whatever else changes a step.
"""

import hashlib

import daskconv
from daskconv import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU, Sequential


def network():
    return Sequential(
        [
            Conv2D(8, 3, padding="same"),
            BatchNorm(),
            MaxPool2D(2),
            ReLU(),
            Flatten(),
            Dropout(0.25),
            Dense(32),
            ReLU(),
            Dense(10),
        ]
    )


def digits():
    data = daskconv.datasets.load("digits")
    return data.x_train, data.y_train, data.x_test, data.y_test


def trainer(**options):
    optimizer = daskconv.SGD(0.05, momentum=0.9, weight_decay=1e-4)
    return daskconv.Trainer(network(), optimizer=optimizer, preprocess="standardize", seed=3, **options)


def trainer_with_all(**options):
    return daskconv.Trainer(
        network(),
        loss=daskconv.SoftmaxCrossEntropy(label_smoothing=0.1),
        optimizer=daskconv.Adam(daskconv.OneCycle(0.01, epochs=2)),
        preprocess="standardize",
        augment=[daskconv.RandomCrop(1), "flip", "jitter"],
        clip_norm=0.5,
        accumulate=2,
        average=0.9,
        **options,
    )


def digest(trained, averaged=False):
    model = trained.averaged_model if averaged else trained.model
    params = model.params | model.state
    return hashlib.sha256(b"".join(params[name].tobytes() for name in sorted(params))).hexdigest()
