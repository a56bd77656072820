"""The compiled inner loops.

They stand in one file because numba's cache on disk watches, for each function, the file that it stands in and no other:
a kernel that called one elsewhere would go on running an old version of it.
"""

from __future__ import annotations

import threading

import numba
import numpy as np

NOT_FINITE, NEGATIVE = 1, 2

# Held by who calls a parallel loop that may run beside another, as loaders do in threads of their own: the simplest of
# numba's schedulers, which is what there is where OpenMP is not, ends the process when two threads enter such loops.
ONE_AT_A_TIME = threading.Lock()

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 2.0**-53

# Counts below this are binned by a histogram, in place of sorting.
_MOST_COUNTS = 4096


@numba.njit(inline="always")
def mix(x):
    """Scramble a uint64 (the finaliser of splitmix64, Steele et al. 2014)."""
    x = np.uint64(x) + _GAMMA
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@numba.njit(inline="always")
def uniform(key, cell, gene):
    """A float64 in [0, 1) for a key, a cell and a gene."""
    bits = mix(mix(np.uint64(key) ^ mix(np.uint64(cell))) ^ np.uint64(gene))
    return (bits >> _S11) * _UNIT


@numba.njit(cache=True)
def mix_all(ids):
    """Scramble each id into a uint64."""
    out = np.empty(len(ids), np.uint64)
    for i in range(len(ids)):
        out[i] = mix(ids[i])
    return out


@numba.njit(cache=True)
def uniform_all(key, cells, genes):
    """Return :func:`uniform` of each pair of a cell and a gene."""
    out = np.empty(len(cells))
    for i in range(len(cells)):
        out[i] = uniform(key, cells[i], genes[i])
    return out


@numba.njit(parallel=True, cache=True, nogil=True)
def profiles(indptr, indices, data):
    """Return a uint64 for each cell that says which genes it expresses and in which order of expression.

    The sum over its genes does not depend on their order, and ranks are the same for counts and log-normalised values.
    """
    n_cells = len(indptr) - 1
    out = np.empty(n_cells, np.uint64)
    for cell in numba.prange(n_cells):
        first, last = indptr[cell], indptr[cell + 1]
        order = np.argsort(data[first:last])
        total = np.uint64(0)
        rank = 0
        for k in range(last - first):
            i = first + order[k]
            if k > 0 and data[i] > data[first + order[k - 1]]:
                rank += 1
            total += mix(mix(np.uint64(indices[i])) ^ np.uint64(rank))
        out[cell] = mix(total)
    return out


@numba.njit
def bin_range(first, last, n, n_bins):
    """Return the lowest and the highest bin of a value at positions ``first .. last`` of ``n`` sorted ones.

    The authors take ``n_bins - 1`` quantiles of the values as edges and count the edges at or below a value. Edge
    ``j`` stands at position ``j (n - 1) / (n_bins - 2)`` of the sorted values, so both counts follow in whole numbers,
    free of rounding.
    """
    steps = n_bins - 2
    if n == 1:
        return 1, n_bins - 1
    highest = steps * last // (n - 1) + 1  # edges at or below the value
    below = (steps * first + n - 2) // (n - 1)  # edges below it
    return min(below + 1, highest), highest


@numba.njit
def bin_in_place(values, n_bins, spread, key, cell, genes, slots):
    """Replace the values of one cell by their bins; value ``i`` is that of ``genes[slots[i]]``, and 0 stays 0."""
    n, highest_value, whole = 0, np.float32(0), True
    for value in values:
        n += value > 0
        highest_value = max(highest_value, value)
        whole = whole and value == np.floor(value)
    # Of each distinct value the lowest and the highest bin. Counts are their own place in the list; others are looked up.
    if whole and highest_value < _MOST_COUNTS:
        distinct = np.empty(0, np.float32)
        lowest = np.zeros(int(highest_value) + 1, np.int64)
        for value in values:
            lowest[int(value)] += 1
        highest = np.zeros_like(lowest)
        lowest[0], first = 0, 0
        for value in range(1, len(lowest)):
            count = lowest[value]
            if count > 0:
                lowest[value], highest[value] = bin_range(first, first + count - 1, n, n_bins)
                first += count
    else:
        distinct = np.sort(values[values > 0])
        lowest, highest = np.zeros(n, np.int64), np.zeros(n, np.int64)
        k, first = 0, 0
        for i in range(n):
            if i == n - 1 or distinct[i + 1] > distinct[i]:
                distinct[k] = distinct[i]
                lowest[k], highest[k] = bin_range(first, i, n, n_bins)
                k, first = k + 1, i + 1
        distinct = distinct[:k]
    middle = ((lowest + highest) // 2).astype(np.float32)
    for i in range(len(values)):
        if values[i] > 0:
            place = np.searchsorted(distinct, values[i]) if len(distinct) else int(values[i])
            if spread:
                n_possible = highest[place] - lowest[place] + 1
                values[i] = lowest[place] + int(uniform(key, cell, genes[slots[i]]) * n_possible)
            else:
                values[i] = middle[place]


# A slot is a gene's place among the genes that the data set and the vocabulary share.


# Without the lock of the interpreter a thread that prepares batches does not hold up the one that trains.


@numba.njit(parallel=True, cache=True, nogil=True)
def survey(indptr, indices, data, slots):
    """Count each cell's expressed genes and flag values that cannot be."""
    n_cells = len(indptr) - 1
    n_genes = np.zeros(n_cells, np.int64)
    flags = np.zeros(n_cells, np.uint8)
    for cell in numba.prange(n_cells):
        count, flag = 0, 0
        for i in range(indptr[cell], indptr[cell + 1]):
            if not np.isfinite(data[i]):
                flag |= NOT_FINITE
            elif data[i] < 0:
                flag |= NEGATIVE
            elif data[i] > 0 and slots[indices[i]] >= 0:
                count += 1
        n_genes[cell] = count
        flags[cell] = flag
    return n_genes, flags


@numba.njit(cache=True, nogil=True)
def merge(indptr, indices, data, slots, n_slots):
    """Rewrite the matrix with one column for each slot; of several columns with one slot the highest value stays."""
    new_indptr = np.zeros_like(indptr)
    new_indices = np.empty_like(indices)
    new_data = np.empty_like(data)
    where = np.full(n_slots, -1, np.int64)  # position in the new row of each slot seen in it
    n = 0
    for cell in range(len(indptr) - 1):
        start = n
        for i in range(indptr[cell], indptr[cell + 1]):
            slot = slots[indices[i]]
            if slot < 0:
                continue
            if where[slot] < start:
                where[slot] = n
                new_indices[n], new_data[n] = slot, data[i]
                n += 1
            else:
                new_data[where[slot]] = max(new_data[where[slot]], data[i])
        new_indptr[cell + 1] = n
    return new_indptr, new_indices[:n], new_data[:n]


@numba.njit(parallel=True, cache=True, nogil=True)
def fill(
    indptr, indices, data, slots, genes, gene_hash, n_genes, offsets, include_zeros, n_bins, spread, key, cell_index,
    cls_id, cls_value,
):  # fmt: skip
    """Write the tokens of every cell: binned, and cut to the length that ``offsets`` leaves it."""
    gene_ids = np.empty(offsets[-1], np.int64)
    values = np.empty(offsets[-1], np.float32)
    for cell in numba.prange(len(n_genes)):
        n = n_genes[cell]
        # The cell's genes, with zeros or without.
        cell_slots = np.arange(n) if include_zeros else np.empty(n, np.int64)
        cell_values = np.zeros(n, np.float32)
        k = 0
        for i in range(indptr[cell], indptr[cell + 1]):
            slot = slots[indices[i]]
            if slot >= 0 and data[i] > 0:
                place = slot if include_zeros else k
                cell_slots[place], cell_values[place] = slot, data[i]
                k += 1
        if n_bins > 0 and k > 0:
            bin_in_place(cell_values, n_bins, spread, key, cell_index[cell], genes, cell_slots)

        position = offsets[cell]
        gene_ids[position], values[position] = cls_id, cls_value
        capacity = offsets[cell + 1] - position - 1
        last = np.uint64(0)
        if n > capacity:
            last = np.partition(gene_hash[cell_slots], capacity - 1)[capacity - 1]
        for i in range(n):
            if n == capacity or gene_hash[cell_slots[i]] <= last:
                position += 1
                gene_ids[position], values[position] = genes[cell_slots[i]], cell_values[i]
    return gene_ids, values


@numba.njit(parallel=True, cache=True, nogil=True)
def choose(key, cell_index, gene_ids, offsets, share):
    """Say of each token whether it is among the ``share`` of its cell's genes that chance puts first."""
    chosen = np.zeros(offsets[-1], np.bool_)
    for cell in numba.prange(len(cell_index)):
        first = offsets[cell] + 1  # <cls> is no gene
        n_genes = offsets[cell + 1] - first
        n_chosen = min(int(np.floor(n_genes * share)), n_genes - 1)
        if n_chosen < 1:
            continue
        chance = np.empty(n_genes)
        for i in range(n_genes):
            chance[i] = uniform(key, cell_index[cell], gene_ids[first + i])
        last = np.partition(chance, n_chosen - 1)[n_chosen - 1]
        left = n_chosen
        for i in range(n_genes):
            if chance[i] < last:
                chosen[first + i] = True
                left -= 1
        for i in range(n_genes):
            if chance[i] == last and left > 0:
                chosen[first + i] = True
                left -= 1
    return chosen
