"""Two-layer ReLU networks with both layers trained and free norms: simplicity bias and the optimization threshold.

E. Boursier and N. Flammarion, arXiv:2410.02348 and arXiv:2401.10791 ([BF]); theory section 9. One training:

    law = DataLaw(dimension=5, teacher=Teacher.unit(5), margin=0.5, noise_std=0.5)
    data = law.draw(160, np.random.default_rng(0))
    network = initial(200, 5, 1e-3, np.random.default_rng(1))
    trajectory = gradient_flow(network, data.inputs, data.labels)

Many: `Sweep` and `run`, or ``dmft relu CONFIG``.
"""

from validation.relu.data import DataLaw, Dataset, Teacher, forty_points, three_points
from validation.relu.descent import adam, gradient_descent
from validation.relu.extremal import Extremal, alignment, extremal_vectors
from validation.relu.files import load, save
from validation.relu.flow import gradient_flow
from validation.relu.network import Network, Nonlinearity, initial
from validation.relu.references import excess_risk, function_distance, least_squares, split_least_squares
from validation.relu.smooth import smooth_flow
from validation.relu.sweep import Source, Sweep, SweepResult, run
from validation.relu.threshold import Threshold, thresholds
from validation.relu.training import Training, Verdict, criterion, verdict
from validation.relu.trajectory import Reason, Trajectory

__all__ = [
    "DataLaw",
    "Dataset",
    "Extremal",
    "Network",
    "Nonlinearity",
    "Reason",
    "Source",
    "Sweep",
    "SweepResult",
    "Teacher",
    "Threshold",
    "Training",
    "Trajectory",
    "Verdict",
    "adam",
    "alignment",
    "criterion",
    "excess_risk",
    "extremal_vectors",
    "forty_points",
    "function_distance",
    "gradient_descent",
    "gradient_flow",
    "initial",
    "least_squares",
    "load",
    "run",
    "save",
    "smooth_flow",
    "split_least_squares",
    "three_points",
    "thresholds",
    "verdict",
]
