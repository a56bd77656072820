"""Models on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from scgpt import hub
from scgpt.hub import ModelCard

from ._persistence import PersistenceMixin


class SharingMixin(PersistenceMixin):
    """``push_to_hub`` for models that can be saved."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: ModelCard | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Push model using scgpt-tools",
    ) -> str:
        """Put the model on the Hugging Face hub, for ``from_pretrained("user/name")`` and ``load("user/name")``.

        What :meth:`save` writes is uploaded, with a card and without any data of cells. The names of labels and batches
        that the model was set up with are part of it.

        Parameters
        ----------
        repo_id
            ``"user/name"``; the repository is made if it is not there.
        card
            What the card is to say beside what the model itself knows; the card that is there is replaced.
        private
            Whether a repository that is made is seen by others. By default as the account has it.
        token
            Of the account. By default the one of ``hf auth login``, or of ``HF_TOKEN``.
        commit_message
            As on the hub.

        Returns
        -------
        The address of the commit.

        Raises
        ------
        ValueError
            When this is no name of a repository.
        PermissionError
            When nobody is logged in, or who is may not write there.
        OSError
            When the upload fails.
        ImportError
            When huggingface_hub is not installed.

        Examples
        --------
        >>> card = scgpt.hub.ModelCard(license="cc-by-4.0", tissues=["blood"])  # doctest: +SKIP
        >>> model.push_to_hub("user/name", card=card)  # doctest: +SKIP
        """
        with TemporaryDirectory() as folder:
            self.save(saved := Path(folder) / "model", card=card or ModelCard())
            return hub.upload(saved, repo_id, private=private, token=token, message=commit_message)
