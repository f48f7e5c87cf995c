"""MkDocs' hooks: pages that lie outside docs/, notebooks and the API become pages; links lead to where things are."""

from __future__ import annotations

from mkdocs.structure.files import File, InclusionLevel

from docs.site import api, notebooks, sources

PLUGIN = (
    "# Two plugins that run\n\n`examples/plugin`, in full; [Something of your own](extend.md) says what each hook is.\n"
)
_homes = {address: path for path, address in sources.OUTSIDE.items()}


def on_config(config):
    pages = [{"hiddennet": "api/hiddennet.md"}]
    pages += [{page.title: f"api/{page.file}.md"} for page in api.pages()]
    config.nav.append({"Python": [*pages, {"All keys of a config": "api/keys.md"}]})
    return config


def on_files(files, config):
    made = {"api/hiddennet.md": api.index(), "api/keys.md": api.keys()}
    made |= {f"api/{page.file}.md": api.markdown(page) for page in api.pages()}
    for path, address in sources.OUTSIDE.items():
        made[address] = (
            sources.folder(path, PLUGIN)
            if (sources.ROOT / path).is_dir()
            else (sources.ROOT / path).read_text(encoding="utf-8")
        )
    for path in sorted((sources.ROOT / "docs/notebooks").glob("*.ipynb")):
        made[f"notebooks/{path.stem}.md"], pictures = notebooks.page(path)
        made |= {f"notebooks/{name}": content for name, content in pictures.items()}
        files.remove(files.get_file_from_path(f"notebooks/{path.name}"))
        _homes[f"notebooks/{path.stem}.md"] = f"docs/notebooks/{path.name}"
    for address, content in made.items():
        files.append(File.generated(config, address, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    address = page.file.src_uri
    if address.startswith("api/"):
        return markdown

    def used(path: str) -> None:
        there = sources.address(path)
        if there.startswith("files/") and files.get_file_from_path(there) is None and (sources.ROOT / path).is_file():
            content = (sources.ROOT / path).read_bytes()
            files.append(File.generated(config, there, content=content, inclusion=InclusionLevel.INCLUDED))

    return sources.on_the_site(markdown, _homes.get(address, f"docs/{address}"), used)
