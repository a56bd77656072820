"""How active gene programs are in cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import scipy.sparse as sp

_N_BINS = 25


def program_scores(values: sp.csr_matrix, members: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Return the mean expression of programs above that of genes that are expressed as much.

    As :func:`scanpy.tl.score_genes` :cite:p:`Satija2015`, but against all genes of a bin of mean expression, each bin as often
    as the program has genes in it, in place of some that are drawn: without chance, and for all programs in one go.

    Parameters
    ----------
    values
        ``(n_cells, n_genes)`` log-normalised.
    members
        Genes of each program.

    Returns
    -------
    ``(n_cells, n_programs)``.
    """
    import scipy.sparse as sp
    from scipy.stats import rankdata

    n_genes, n_programs = values.shape[1], len(members)
    mean = np.asarray(values.mean(0)).ravel()
    bins = (rankdata(mean, method="min").astype(int) - 1) * _N_BINS // n_genes
    size = np.bincount(bins, minlength=_N_BINS)
    sizes = np.array([len(own) for own in members])
    genes, program = np.concatenate(members), np.repeat(np.arange(n_programs), sizes)
    in_bin = np.zeros((n_programs, _N_BINS))
    np.add.at(in_bin, (program, bins[genes]), 1)
    others = size - in_bin
    # Weight of each gene of a bin that is not the program's; where it has all of them, there is nothing to compare with.
    weight = np.divide(in_bin / sizes[:, None], others, out=np.zeros_like(in_bin), where=others > 0)
    # Sums over whole bins count the program's own genes, which are added again.
    own = sp.csr_matrix(
        (1 / sizes[program] + weight[program, bins[genes]], (genes, program)), shape=(n_genes, n_programs)
    )
    of_bin = sp.csr_matrix((np.ones(n_genes), (np.arange(n_genes), bins)), shape=(n_genes, _N_BINS))
    return ((values @ own).toarray() - (values @ of_bin).toarray() @ weight.T).astype(np.float32)
