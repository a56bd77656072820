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
from ._masking import drop_genes, mask_values
from ._matching import GeneMatch, in_memory, match_genes, name_keys, own_names, read_mapping
from ._studies import MEASURED, Study, check_measured, join_studies, measured_by
from ._tokenizer import Tokenizer
from ._vocab import GeneVocab

__all__ = [
    "MEASURED",
    "CellConditions",
    "Cells",
    "Conditions",
    "GeneMatch",
    "GeneSets",
    "GeneVocab",
    "Study",
    "TokenBatch",
    "Tokenizer",
    "bin_values",
    "check_anndata",
    "check_measured",
    "conditions_of_genes",
    "derive_key",
    "drop_genes",
    "in_memory",
    "join_studies",
    "mask_values",
    "match_genes",
    "measured_by",
    "name_keys",
    "own_names",
    "read_gmt",
    "read_mapping",
]
