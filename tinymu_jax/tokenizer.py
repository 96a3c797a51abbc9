"""SmolLM2's tokenizer as TinyMU uses it: "!" is split off first, and nothing is added."""

from collections.abc import Sequence

from tinymu_jax.errors import InputError

END_TEXT = "<|endoftext|>"


class Tokenizer:
    """Text to token ids and back."""

    def __init__(self, text: str, pad_token: int = 17, where: str = "tokenizer.json") -> None:
        """Builds it from the text of a `tokenizer.json`.

        Raises:
            InputError: no tokenizer, or one in which "!" is not `pad_token`.
        """
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Fast

        self.text = text
        try:
            self._fast = Fast.from_str(text)
        except Exception as error:
            raise InputError(
                f"{where}: is no tokenizer ({str(error).splitlines()[0]}); use the decoder's own "
                "tokenizer.json"
            ) from error
        # A file may have been saved with these on; they would change what is asked.
        self._fast.no_padding()
        self._fast.no_truncation()
        # The published code declares "!" the pad token. From then on it is cut out of a text
        # before byte pairs are merged: "!!" is two tokens, whatever the vocabulary holds.
        self._fast.add_special_tokens([AddedToken("!", special=True, normalized=False)])
        if self._fast.token_to_id("!") != pad_token:
            raise InputError(
                f'{where}: "!" is token {self._fast.token_to_id("!")}, this model pads with '
                f"{pad_token}; use the decoder's own tokenizer.json"
            )

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text; no special tokens are added."""
        return self._fast.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of token ids up to the end token.

        Special tokens are kept, since "!" is one.
        """
        return self._fast.decode(list(tokens), skip_special_tokens=False).split(END_TEXT)[0]
