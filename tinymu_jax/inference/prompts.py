"""Converts prompts and options to token ids, and checks them."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

from tinymu_jax.errors import InputError
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.tokenizer import Tokenizer


class PromptEncoder:
    """Converts prompts and options to token ids, and checks that the model can take them.

    `find_tokenizer` is called when text is first encoded or decoded.
    """

    def __init__(
        self,
        config: TinyMUConfig,
        find_tokenizer: Callable[[], Tokenizer] | None = None,
        name: str = "this checkpoint",
    ) -> None:
        self.config, self.name, self._find_tokenizer = config, name, find_tokenizer
        self._tokenize = lru_cache(maxsize=4096)(lambda text: tuple(self.tokenizer.encode(text)))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The decoder's tokenizer; raises `InputError` if it is missing or cannot be downloaded."""
        if self._find_tokenizer is None:
            raise InputError(f"{self.name}: has no tokenizer; give token ids, or load it with one")
        return self._find_tokenizer()

    def encode_prompt(self, prompt: str | Sequence[int], truncate: bool = False) -> tuple[int, ...]:
        """Convert a prompt (text or token ids) to at most `config.max_text_tokens` token ids.

        Raises:
            InputError: the prompt is empty, too long (unless `truncate`), not UTF-8 or not in the
                vocabulary; there is no tokenizer.
        """
        if len(prompt) == 0:
            raise InputError("the prompt is empty: ask something about the recording")
        tokens, limit = self.encode_text(prompt, "the prompt"), self.config.max_text_tokens
        if truncate:
            return tokens[:limit]
        if len(tokens) > limit:
            raise InputError(
                f"the prompt has {len(tokens)} tokens, the model takes {limit}: shorten it, or "
                "have ask or score cut it with --truncate-prompt (truncate_prompt=True)"
            )
        return tokens

    def encode_text(self, text: str | Sequence[int], what: str) -> tuple[int, ...]:
        """Convert a text (or token ids) to token ids, and check that they are in the vocabulary.

        `what` is the name of the text in error messages, such as "an option".
        """
        if isinstance(text, str):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InputError(f"{what} is not UTF-8 text: check its encoding") from error
            tokens = self._tokenize(text)
        else:
            tokens = tuple(int(token) for token in text)
        size = self.config.decoder.vocab_size
        # For an id beyond the vocabulary, a lookup would return the last token's embedding.
        if tokens and not 0 <= min(tokens) <= max(tokens) < size:
            raise InputError(
                f"{what} holds tokens {min(tokens)} to {max(tokens)}, the vocabulary has {size}: "
                "use this decoder's own tokenizer"
            )
        return tokens
