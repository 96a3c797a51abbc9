"""README and documentation: links lead somewhere, commands parse, paths exist, the site builds."""

import ast
import contextlib
import functools
import io
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
import tyro
import yaml

ROOT = Path(__file__).parents[1]
SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *SITE]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
TOP = ("configs", "conversion", "docs", "launch", "tests", "tinymu_jax")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9_.-]*[a-z0-9]")
# Options of the authors' scripts, on the page that compares them with ours.
THEIRS = {
    *("--audio_path", "--btz", "--ckpt_path", "--config_path", "--epochs", "--exp_dir"),
    *("--exp_name", "--lr", "--pretrain_ckpt_path", "--use_wandb"),
}
CONVERSIONS = ("from_torch", "to_torch", "verify")
SUBCOMMANDS = (
    *("ask", "score", "embed", "export", "push", "tag", "quickstart", "ablate", "serve"),
    *("caption", "index", "similar", "duplicates", "find"),
    *(f"convert {name}" for name in ("from-torch", "to-torch", "verify")),
    *(f"data {name}" for name in ("synthesize", "render", "prepare", "build", "check-leaks")),
    *(f"data {name}" for name in ("train-tokenizer", "stats")),
    *(f"evaluate {name}" for name in ("probe", "muchomusic", "captions", "classification")),
    *(f"evaluate {name}" for name in ("questions", "synthetic", "report")),
)
ENDS = {";", "|", "||", "&&", ">", ">>", "<", "&"}


def _name(page):
    return str(page.relative_to(ROOT))


def _shown(value):
    return value if isinstance(value, str) else " ".join(value)


def _prose(page):
    """A page without its blocks of code."""
    return FENCED.sub("", page.read_text("utf-8"))


def _slugs(page):
    """The anchors of a page's headings, as both GitHub and the site make them."""
    result = set()
    for title in re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", title.replace("`", "").lower()).strip()
        result |= {plain.replace(" ", "-"), re.sub(r"[-\s]+", "-", plain)}
    return result


def _blocks(page, *languages):
    return [
        body for language, body in FENCED.findall(page.read_text("utf-8")) if language in languages
    ]


def commands_of(block):
    """The commands of a block of shell, each a list of words."""
    result = []
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words, before = [], ";"
        for word in [*lexer, ";"]:
            if word not in ENDS:
                words.append(word)
                continue
            # What stands behind an arrow is a file.
            if words and before[0] not in "<>":
                result.append(_without_variables(words))
            words, before = [], word
    return result


def _without_variables(words):
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words


def _all_commands():
    """Every command of README and documentation once, with the first page that has it."""
    result = {}
    for page in PAGES:
        for block in _blocks(page, "bash", "sh", "shell"):
            for words in commands_of(block):
                result.setdefault(tuple(word for word in words if word != "..."), _name(page))
    return result


COMMANDS = _all_commands()
OURS = [words for words in COMMANDS if words[:1] == ("tinymu",)]
MODULES = [words for words in COMMANDS if words[:2] == ("python", "-m") and "conv" in words[2]]
FILES = [
    (words, path)
    for words in COMMANDS
    for path in words
    if re.match(rf"(?:{'|'.join(TOP)})/.*\.(?:py|sh|sbatch)$", path)
]


def parse(words, monkeypatch):
    """Reads a command's options as the program does, and runs nothing."""
    asked = SimpleNamespace(run=lambda: 0)
    if words[0] == "tinymu":
        module, arguments = import_module("tinymu_jax.cli.main"), words[1:]
    else:
        module, arguments = import_module(words[2]), words[3:]
    for owner, name in ((tyro, "cli"), (tyro.extras, "subcommand_cli_from_dict")):
        real = getattr(owner, name)

        @functools.wraps(real)
        def read(*args, real=real, **options):
            real(*args, **options)
            return asked

        monkeypatch.setattr(owner, name, read)
    monkeypatch.setattr("tinymu_jax.cli.main.keep_heap", lambda: None)
    monkeypatch.setattr(sys, "argv", [words[0], *arguments])
    monkeypatch.chdir(ROOT)
    try:
        module.main()
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.parametrize("words", [*OURS, *MODULES], ids=" ".join)
def test_commands_parse(words, monkeypatch, capsys):
    code = parse(words, monkeypatch)
    assert code == 0, f"{COMMANDS[words]}: {' '.join(words)}\n{capsys.readouterr()}"


@pytest.mark.parametrize(
    "command",
    [
        "tinymu ask song.mp3 --prompt why --no-such-option 1",
        "tinymu listen song.mp3",
        "tinymu train --config configs/sft_tinymu.py --optim.no-such-field 1",
        "python -m conversion.to_torch checkpoint/ tinymu.pt --no-such-option",
    ],
)
def test_commands_that_are_wrong_are_found(command, monkeypatch, capsys):
    assert parse(tuple(command.split()), monkeypatch) != 0


def test_commands_are_read_off_a_block():
    block = (
        'A=1 tinymu ask *.mp3 --prompt "a b" \\\n  --json > out.jsonl   # why\npip x && tinymu y\n'
    )
    expected = [["tinymu", "ask", "*.mp3", "--prompt", "a b", "--json"], ["pip", "x"]]
    assert commands_of(block) == [*expected, ["tinymu", "y"]]


def test_pages_have_commands():
    assert len(OURS) > 30
    assert any("convert" in words for words in OURS)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_named_in_sentences_exist(page, monkeypatch, capsys):
    for span in SPAN.findall(_prose(page)):
        words = span.split()
        if words[0] == "tinymu" and len(words) > 1:
            groups = words[1] in ("data", "evaluate", "convert") and len(words) > 2
            named = words[: 3 if groups else 2]
            with monkeypatch.context() as patch:
                parse((*named, "--help"), patch)
            usage = " ".join(capsys.readouterr().out.split())
            assert usage.startswith(f"usage: {' '.join(named)} ["), f"{_name(page)}: `{span}`"


@pytest.fixture(scope="module")
def options():
    """Every option that a command, or a script beside the package, has."""
    scripts = [*ROOT.glob("launch/*.*"), *ROOT.glob("tests/benchmarks/*.py")]
    text = " ".join(path.read_text("utf-8") for path in scripts)
    configs = ("train", "pretrain", "train-tagger")
    lora = "train --config configs/sft_lora.py"
    asked = {("tinymu", *command.split()) for command in (*configs, lora, *SUBCOMMANDS)}
    asked |= {("python", "-m", f"conversion.{name}") for name in CONVERSIONS}
    for words in asked:
        with pytest.MonkeyPatch.context() as patch, io.StringIO() as shown:
            patch.setenv("COLUMNS", "200")
            with contextlib.redirect_stdout(shown):
                assert parse((*words, "--help"), patch) == 0
            text += shown.getvalue()
    return set(OPTION.findall(text))


@pytest.mark.parametrize(("words", "path"), FILES, ids=_shown)
def test_scripts_and_their_options_exist(words, path, options):
    assert (ROOT / path).is_file(), f"{COMMANDS[words]}: {path} is not there"
    text = (ROOT / path).read_text("utf-8")
    named = [word.partition("=")[0] for word in words[words.index(path) :] if word[:2] == "--"]
    # Some hand options on to our commands.
    missing = [name for name in named if name not in text and name not in options]
    assert not missing, f"{COMMANDS[words]}: {path} has no {missing}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_options_named_in_sentences_exist(page, options):
    named = {name for span in SPAN.findall(_prose(page)) for name in OPTION.findall(span)}
    known = options | (THEIRS if page.name == "from_pytorch_tinymu.md" else set())
    assert named <= known, f"{_name(page)}: {sorted(named - known)}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    # References to the Python names are held by the site's own check.
    for target in LINK.findall(SPAN.sub("", _prose(page))):
        path, _, anchor = unquote(target).partition("#")
        if re.match(r"[a-z]+:", path) or anchor.startswith(("tinymu_jax.", "conversion.")):
            continue
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), f"{_name(page)}: {target}"
        if anchor and aim.suffix == ".md":
            assert anchor in _slugs(aim), f"{_name(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_paths_of_the_repository_exist(page):
    for span in SPAN.findall(_prose(page)):
        if re.fullmatch(rf"(?:{'|'.join(TOP)})/[\w./*-]*", span):
            assert list(ROOT.glob(span.rstrip("/"))), f"{_name(page)}: `{span}`"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_names_imported_in_examples_exist(page):
    for block in _blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = import_module(node.module)
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                assert not missing, f"{_name(page)}: {node.module} has no {missing}"
            if isinstance(node, ast.Import):
                for name in node.names:
                    import_module(name.name)


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    named = {page for entry in nav for page in entry.values()}
    assert named == {str(page.relative_to(ROOT / "docs")) for page in SITE}


def test_site_builds_without_warnings(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    # The theme's note about other programs is no warning about the site.
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    pages = {page: (tmp_path / page).with_suffix(".html").read_text("utf-8") for page in _listed()}
    for page, text in pages.items():
        outside = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="?(https?:[^" >]+)', text)
        assert not outside, f"{page} fetches {outside}"
    assert 'class="architecture"' in pages["model.md"]
    assert "max_new_tokens" in pages["reference.md"]


def _listed():
    return [str(page.relative_to(ROOT / "docs")) for page in SITE]
