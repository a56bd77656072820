"""Names of gene sets as one would write them."""

from __future__ import annotations

_COLLECTIONS = {
    "HALLMARK": "Hallmark",
    "REACTOME": "Reactome",
    "KEGG_MEDICUS": "KEGG Medicus",
    "KEGG": "KEGG",
    "WP": "WikiPathways",
    "BIOCARTA": "BioCarta",
    "PID": "PID",
    "GOBP": "GO process",
    "GOCC": "GO component",
    "GOMF": "GO function",
}
_WRITTEN = {"MRNA": "mRNA", "RRNA": "rRNA", "TRNA": "tRNA", "NCRNA": "ncRNA", "BETA": "beta"} | {
    word: word
    for word in (
        "DNA RNA ATP ADP GTP NADH MHC TCR BCR TNF TNFA NFKB IFN TGF MAPK ERK JAK STAT AKT MTOR MYC KRAS WNT UV ER GPCR "
        "SRP NMD EGFR FGFR VEGF GPI ROS ECM II III IV"
    ).split()
}


def set_name(name: str) -> tuple[str, str]:
    """Return the collection that a name in the manner of MSigDB begins with, if it does, and the rest in small letters."""
    if name != name.upper() or "_" not in name:
        return "", name
    prefix = next((own for own in _COLLECTIONS if name.startswith(f"{own}_")), "")
    words = name.removeprefix(f"{prefix}_").split("_")
    small = [
        _WRITTEN.get(word, word if any(letter.isdigit() for letter in word) else word.lower()) for word in words if word
    ]
    first = small[0] if small else ""
    if first.islower():
        small[0] = first.capitalize()
    return _COLLECTIONS.get(prefix, ""), " ".join(small)


def shortened(name: str, most: int) -> str:
    """Return a name of so many letters at most, cut after a word with an ellipsis."""
    if len(name) <= most:
        return name
    cut = name[:most]
    return (cut.rpartition(" ")[0] or cut[:-1]).rstrip(" ,;:") + "…"
