"""From an expression matrix to tokens."""

from scgpt._token_batch import TokenBatch

from ._binning import bin_values
from ._cell_conditions import CellConditions
from ._cells import Cells
from ._checks import check_anndata
from ._conditions import Conditions, conditions_of_genes
from ._gene_sets import GeneSets
from ._gmt import read_gmt
from ._hashing import derive_key
from ._masking import mask_values
from ._matching import GeneMatch, gene_names, in_memory, match_genes, read_mapping
from ._tokenizer import Tokenizer
from ._vocab import GeneVocab

__all__ = [
    "CellConditions",
    "Cells",
    "Conditions",
    "GeneMatch",
    "GeneSets",
    "GeneVocab",
    "TokenBatch",
    "Tokenizer",
    "bin_values",
    "check_anndata",
    "conditions_of_genes",
    "derive_key",
    "gene_names",
    "in_memory",
    "mask_values",
    "match_genes",
    "read_gmt",
    "read_mapping",
]
