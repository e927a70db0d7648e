"""Where Hydra finds the user's own configurations: a folder of files that `read_yaml` reads."""

from __future__ import annotations

from pathlib import Path

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource

from nas.study.yaml_files import read_text, read_yaml


class CheckedFolder(ConfigSource):
    """The files `GROUP/NAME.yaml` of a folder."""

    @staticmethod
    def scheme() -> str:
        return "hwnas"

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._file(config_path)
        header = self._get_header_dict(read_text(file))
        return ConfigResult(self.provider, self.full_path(), read_yaml(file), header)

    def available(self) -> bool:
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return self._file(config_path).exists()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found: list[str] = []
        for file in Path(self.path, config_path).iterdir():
            path = f"{config_path}/{file.name}"
            self._list_add_result(found, path, file.name, results_filter)
        return sorted(set(found))

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(config_path))


def searchpath(folder: Path) -> str:
    """Return the override with which Hydra looks into `folder` as well."""
    Plugins.instance().register(CheckedFolder)
    path = str(folder.resolve()).replace("'", "\\'")
    return f"hydra.searchpath=['{CheckedFolder.scheme()}://{path}']"
