"""The loss of each photo of a batch, from what the network predicts and where the photo's points are.

Every loss is finite, with finite gradients, for finite predictions up to 1e15 pixels, and least at the truth. Missing
points neither count nor learn. Adaptive Wing is not among them: it depends on the true value of a heatmap's pixel, and
no head here gives heatmaps.

Shapes: B photos, K points, E edges, N bins.
"""

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.nn.functional import kl_div, l1_loss, log_softmax, mse_loss, smooth_l1_loss

from models import Distributions, Prediction
from pipeline.data.loader import Batch
from pipeline.recipe import LossOptions
from pipeline.training.flow import Flow

WING_WIDTH, WING_EPSILON = 10.0, 2.0  # pixels of the image, as published
SOFT_WING_START, SOFT_WING_WIDTH, SOFT_WING_EPSILON = 2.0, 20.0, 0.5  # likewise
SMALLEST_SHAPE = 1 / 16  # of the image's side: a single point has no size, and would outweigh all other photos
LOG_SCALES = math.log(0.01), math.log(1e4)  # of learned scales, in pixels of the image
FARTHEST = 1e3  # learned scales: up to which a flow's density is evaluated
LEAST_DIVERGENCE = 1e-6  # below it focal exponents under 1 have slopes without bound
NUM_NEIGHBOURS = 4

UNIT_POWERS = {"smooth_l1": 1, "l1": 1, "wing": 1, "soft_wing": 1, "mse": 2}  # of pixels in a loss; 0 for the others


def sample_losses(
    predicted: Prediction, batch: Batch, options: LossOptions, *, size: int, flow: Flow | None = None
) -> torch.Tensor:
    """(B,) the loss of each photo, averaged over its known points, in pixels of the image or without a unit.

    Points outside the frame, which can only be guessed, count `outside_weight` times as much as those inside, and so
    does a photo all of whose points are outside. size: of the images in whose pixels points are given; the images shown
    may be smaller. flow: for "rle".
    """
    there = ~batch.points.isnan()
    points = predicted.points.float()
    target = torch.where(there, batch.points, points.detach())
    if options.loss == "enme":
        losses = normalised_distances(points, target, there, side=size)
    else:
        losses = _losses(predicted, points, target, options, flow)
    if losses.shape[2] == 1:  # of points, not of coordinates
        there = there.all(2, keepdim=True)
    weights = there * torch.where(batch.inside, 1.0, options.outside_weight)[..., None]
    return weighted_means(losses.flatten(1), weights.flatten(1))


def weighted_means(losses: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(B,) means of (B, M) losses with weights from 0 to 1, times the largest weight of each row, so that a photo
    whose points all have low weights has a low weight itself."""
    if not losses.shape[1]:
        return losses.sum(1)
    return (losses * weights).sum(1) / weights.sum(1).clamp(min=1e-6) * weights.amax(1)


def _losses(predicted, points, target, options, flow):
    """(B, K, 2) losses of coordinates, or (B, K, 1) of points."""
    match options.loss:
        case "smooth_l1":
            return smooth_l1_loss(points, target, beta=options.beta, reduction="none")
        case "mse":
            return mse_loss(points, target, reduction="none")
        case "l1":
            return l1_loss(points, target, reduction="none")
        case "wing":
            return wing(points - target)
        case "soft_wing":
            return soft_wing(points - target)
        case "gaussian_nll":
            return gaussian_nll(points, target, log_scales(predicted))
        case "laplace_nll":
            return laplace_nll(points, target, log_scales(predicted))
        case "rle":
            assert flow is not None
            return residual_nll(points, target, log_scales(predicted), flow)
        case "simcc":
            assert predicted.distributions is not None
            return divergences(predicted.distributions, target, sigma=options.simcc_sigma, focal=options.focal)


def wing(errors: torch.Tensor) -> torch.Tensor:
    """Logarithmic near the truth, linear far from it. Source: Feng et al., "Wing Loss for Robust Facial Landmark
    Localisation with Convolutional Neural Networks", CVPR 2018."""
    sizes = errors.abs()
    joint = WING_WIDTH * (1 - math.log1p(WING_WIDTH / WING_EPSILON))
    return torch.where(sizes < WING_WIDTH, WING_WIDTH * torch.log1p(sizes / WING_EPSILON), sizes - joint)


def soft_wing(errors: torch.Tensor) -> torch.Tensor:
    """Linear near the truth, logarithmic far from it. Source: Lin et al., "Structure-Coherent Deep Feature Learning for
    Robust Face Alignment", TIP 2021."""
    sizes = errors.abs()
    joint = SOFT_WING_START - SOFT_WING_WIDTH * math.log1p(SOFT_WING_START / SOFT_WING_EPSILON)
    far = SOFT_WING_WIDTH * torch.log1p(sizes / SOFT_WING_EPSILON) + joint
    return torch.where(sizes < SOFT_WING_START, sizes, far)


def normalised_distances(points: torch.Tensor, target: torch.Tensor, there: torch.Tensor, *, side: int) -> torch.Tensor:
    """(B, K, 1) distances in percent of the root of the area of the box around a photo's points, as in the NME."""
    low, high = (torch.where(there, target.detach(), sign * torch.inf) for sign in (1, -1))
    sides = (high.amax(1) - low.amin(1)).clamp(min=0)
    sizes = sides.prod(1).sqrt().clamp(min=SMALLEST_SHAPE * side)
    return 100 * torch.linalg.vector_norm(points - target, dim=2, keepdim=True) / sizes[:, None, None]


def log_scales(predicted: Prediction) -> torch.Tensor:
    """(B, K, 1) logarithms of learned scales, kept within bounds. Gradients pass the bounds, so that they lead back."""
    assert predicted.log_scale is not None
    found = predicted.log_scale.float()
    return (found.detach().clamp(*LOG_SCALES) + (found - found.detach()))[..., None]


def gaussian_nll(points: torch.Tensor, target: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of a normal error with the learned standard deviation. Source: Nix and Weigend,
    "Estimating the Mean and Variance of the Target Probability Distribution", ICNN 1994."""
    return -torch.distributions.Normal(points, log_scale.exp(), validate_args=False).log_prob(target)


def laplace_nll(points: torch.Tensor, target: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of an error with a Laplace density, of the learned standard deviation."""
    return -torch.distributions.Laplace(points, log_scale.exp() / math.sqrt(2), validate_args=False).log_prob(target)


def residual_nll(points: torch.Tensor, target: torch.Tensor, log_scale: torch.Tensor, flow: Flow) -> torch.Tensor:
    """(B, K, 1) negative log-likelihood of a point, per coordinate: the Laplace one, of the learned mean absolute
    error, plus that of a flow of errors in units of it, which learns how errors are really distributed.

    Source: Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", ICCV 2021.
    """
    relative = ((target - points) / log_scale.exp()).clamp(-FARTHEST, FARTHEST)
    of_flow = log_scale - flow.log_prob(relative)[..., None] / 2
    laplace = laplace_nll(points, target, log_scale + math.log(2) / 2)
    return laplace.mean(2, keepdim=True) + of_flow


def divergences(distributions: Distributions, target: torch.Tensor, *, sigma: float, focal: float) -> torch.Tensor:
    """(B, K, 2) Kullback-Leibler divergences from Gaussians around the true coordinates, for each coordinate.

    A point beyond the outermost bin counts as if it lay there. Source: Li et al., "SimCC", ECCV 2022. The factor is
    that of the focal loss (Lin et al., ICCV 2017) for a truth with the probability exp(-divergence): the two are the
    same if the truth is a single bin, and the minimum stays where it is.
    """
    x_logits, y_logits, x_bins, y_bins = distributions
    pairs = ((x_logits, x_bins, target[..., 0]), (y_logits, y_bins, target[..., 1]))
    found = torch.stack([_divergence(*pair, sigma) for pair in pairs], dim=2)
    return found * (-torch.expm1(-found.clamp(min=LEAST_DIVERGENCE))) ** focal if focal else found


def _divergence(logits, bins, truth, sigma):
    """(B, K) from (B, K, N) logits, (N,) bins and (B, K) truth."""
    distances = truth.clamp(bins.amin(), bins.amax())[..., None] - bins
    wanted = log_softmax(-(distances / sigma).square() / 2, dim=-1)
    return kl_div(log_softmax(logits.float(), dim=-1), wanted, reduction="none", log_target=True).sum(-1)


def nearest_neighbours(shape: np.ndarray) -> np.ndarray:
    """(E, 2) pairs of points of a (K, 2) shape, one of which is among the other's nearest neighbours."""
    num_neighbours = min(NUM_NEIGHBOURS, len(shape) - 1)
    found = cKDTree(shape).query(shape, k=num_neighbours + 1)[1].reshape(len(shape), -1)
    pairs = np.stack((np.repeat(np.arange(len(shape)), found.shape[1]), found.ravel()), axis=1)
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def edge_losses(points: torch.Tensor, batch: Batch, edges: torch.Tensor, *, outside_weight: float) -> torch.Tensor:
    """(B,) mean absolute error of the lengths of (E, 2) edges with both ends known, in pixels of the image.

    An edge counts as much as the end that counts less.
    """
    there = (~batch.points.isnan()).all(2)
    points = points.float()
    target = torch.where(there[..., None], batch.points, points.detach())
    weights = there * torch.where(batch.inside, 1.0, outside_weight)
    weights = weights[:, edges].amin(2)
    errors = (_lengths(points, edges) - _lengths(target, edges)).abs()
    return weighted_means(errors, weights)


def _lengths(points, edges):
    return torch.linalg.vector_norm(points[:, edges[:, 0]] - points[:, edges[:, 1]], dim=2)


def squared_errors(predicted: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B,) mean squared error of each photo over its known coordinates, in squared pixels of the photo."""
    there = ~batch.points.isnan()
    squares = torch.where(there, predicted - batch.points, 0).square().sum((1, 2))
    return squares / there.sum((1, 2)).clamp(min=1) * batch.scale.square()


def photo_weights(scale: torch.Tensor, *, unit: str, typical_scale: float, power: int = 1) -> torch.Tensor:
    """(B,) factors that convert losses from pixels of the image to the unit of the loss.

    unit: "image", where all are 1; or "photo", for pixels of the photos in units of the data set's typical photo.
    power: of pixels in the loss, such as 2 for squares; 0 if it has no unit.
    """
    return (scale / typical_scale) ** power if unit == "photo" else torch.ones_like(scale)
