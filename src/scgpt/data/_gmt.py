"""Reading gene sets from files."""

from __future__ import annotations

from pathlib import Path


def read_gmt(path: str | Path) -> dict[str, tuple[str, ...]]:
    r"""Read gene sets from a GMT file: on each line a name, a description and the genes, with tabs between them.

    Parameters
    ----------
    path
        The file, as MSigDB, Reactome and Enrichr give them.

    Returns
    -------
    The genes of each set, each once, in the order of the file.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When it holds no set, a line names no gene, or two lines have one name.

    Examples
    --------
    >>> from pathlib import Path
    >>> from scgpt.data import read_gmt
    >>> _ = Path("sets.gmt").write_text("HALLMARK_HYPOXIA\twhere it is from\tPGK1\tPDK1\n")
    >>> read_gmt("sets.gmt")
    {'HALLMARK_HYPOXIA': ('PGK1', 'PDK1')}
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file; a GMT file is needed.") from None
    sets: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = (field.strip() for field in line.split("\t"))
        genes = tuple(dict.fromkeys(gene for gene in rest[1:] if gene))
        if not name or not genes:
            raise ValueError(
                f"Line {number} of {path} is no gene set; expected a name, a description and genes, with tabs between."
            )
        if name in sets:
            raise ValueError(f"Line {number} of {path} names the set {name!r}, as one before it does; rename one.")
        sets[name] = genes
    if not sets:
        raise ValueError(f"{path} holds no gene set.")
    return sets
