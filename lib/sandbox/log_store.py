"""``python -m sandbox.log_store``: compile the log store for S3, which the product ships as a jar, without a JDK."""

import io
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pyspark

from bronze.runtime.jars import LOG_STORE, find_java, get_spark_packages, resolve_jars

COMPILER = "org.eclipse.jdt:ecj:3.42.0"  # Eclipse's compiler, which needs only a JRE
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same source gives the same jar


def build_log_store() -> bytes:
    """Compile the source next to the jar; return the content of the jar."""
    (compiler,) = resolve_jars(COMPILER)
    needed = [*resolve_jars(*get_spark_packages()), *Path(pyspark.__file__).parent.glob("jars/hadoop-client-api-*.jar")]
    with tempfile.TemporaryDirectory() as folder:
        command = [find_java(), "-jar", str(compiler), "--release", "17", "-g:none", "-d", folder]
        command += ["-cp", ":".join(map(str, needed)), *map(str, sorted(LOG_STORE.parent.glob("*.java")))]
        subprocess.run(command, check=True)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as jar:
            for file in sorted(Path(folder).rglob("*.class")):
                jar.writestr(zipfile.ZipInfo(str(file.relative_to(folder)), _EPOCH), file.read_bytes())
    return content.getvalue()


def main() -> None:
    """Write the jar."""
    LOG_STORE.write_bytes(build_log_store())
    print(LOG_STORE)


if __name__ == "__main__":
    main()
