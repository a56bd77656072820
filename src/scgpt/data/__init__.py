"""From an expression matrix to tokens."""

from scgpt._token_batch import TokenBatch

from ._aligned import aligned
from ._arguments import check_name, check_new_key, check_whole, path_of
from ._binning import bin_values, unbin_values, values_of_bins
from ._by_name import by_name
from ._cell_conditions import CellConditions
from ._cells import Cells, dask_matrix
from ._checks import check_anndata, check_layer, check_mudata
from ._columns import as_categories, as_text, column_of, without_missing
from ._conditions import Conditions, conditions_of_genes
from ._features import StudyExpression, accessible_peaks, variable_genes
from ._gene_sets import GeneSets
from ._gmt import read_gmt
from ._hashing import check_seed, derive_key, profiles_of, uniform_of
from ._join_modalities import join_modalities
from ._masking import add_unknown, drop_genes, drop_modalities, mark_unknown, mask_values
from ._matching import GeneMatch, gene_names, ids_of, in_memory, match_genes, name_keys, own_names, read_mapping
from ._measured import levels_of_genes, measured_tokens
from ._mudata import check_linked, name_modalities, obs_column, rows_of_modality
from ._multi_cells import MODALITIES, N_MODALITIES, ModalityCells, MultiCells
from ._perturbed import GeneValues, Marks, Pairing, PerturbedCells, tokens_of_cells
from ._proteins import above_background
from ._scale import check_log_normalised, expression_of, log_normalised, scale_of
from ._studies import MEASURED, Study, check_measured, join_studies, measured_by
from ._tokenizer import Tokenizer
from ._vocab import GeneVocab

__all__ = [
    "MEASURED",
    "MODALITIES",
    "N_MODALITIES",
    "CellConditions",
    "Cells",
    "Conditions",
    "GeneMatch",
    "GeneSets",
    "GeneValues",
    "GeneVocab",
    "Marks",
    "ModalityCells",
    "MultiCells",
    "Pairing",
    "PerturbedCells",
    "Study",
    "StudyExpression",
    "TokenBatch",
    "Tokenizer",
    "above_background",
    "accessible_peaks",
    "add_unknown",
    "aligned",
    "as_categories",
    "as_text",
    "bin_values",
    "by_name",
    "check_anndata",
    "check_layer",
    "check_linked",
    "check_log_normalised",
    "check_measured",
    "check_mudata",
    "check_name",
    "check_new_key",
    "check_seed",
    "check_whole",
    "column_of",
    "conditions_of_genes",
    "dask_matrix",
    "derive_key",
    "drop_genes",
    "drop_modalities",
    "expression_of",
    "gene_names",
    "ids_of",
    "in_memory",
    "join_modalities",
    "join_studies",
    "levels_of_genes",
    "log_normalised",
    "mark_unknown",
    "mask_values",
    "match_genes",
    "measured_by",
    "measured_tokens",
    "name_keys",
    "name_modalities",
    "obs_column",
    "own_names",
    "path_of",
    "profiles_of",
    "read_gmt",
    "read_mapping",
    "rows_of_modality",
    "scale_of",
    "tokens_of_cells",
    "unbin_values",
    "uniform_of",
    "values_of_bins",
    "variable_genes",
    "without_missing",
]
