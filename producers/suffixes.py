"""Suffixes of files that are certainly not images: these are counted and not opened.

A file whose suffix is neither here nor in `MEDIA_TYPES` is opened. A suffix that says little
(`.bin`, `.dat`, `.bak`, `.old`, `.orig`, `.1`) must therefore not be listed here.
"""

from __future__ import annotations

from typing import Final

_SOURCE: Final = """
    asm bash bat bazel bzl c cc cfg cljs clj cmake cmd coffee conf cpp cs csproj css cts cu cuh cxx
    d dart diff dockerfile editorconfig ejs el elm env erb erl ex exs f90 fish fs fsx gemspec go
    gradle graphql groovy h hbs hh hpp hrl hs html htm hxx ini ipynb java jinja jinja2 jl js jsx
    kt kts less lisp lock lua m4 mak make mjs mk ml mli mm mts nim nix nsi pas patch php pl plist pm
    pom postcss prisma properties proto ps1 psm1 pug pxd py pyi pyw pyx qml r rake rb rs sass sbt
    scala scm scss sh sln sol sql sty styl svelte swift tcl tex tf tfvars toml ts tsx vb vcxproj v
    vhd vhdl vim vue wat wgsl xaml xhtml xsd xsl xslt yaml yml zig zsh
"""
_TEXT_AND_DATA: Final = """
    adoc aae arrow asc avro bib cer crt csv db dbf dta dtd eml feather geojson gpx h5 hdf5 ics
    idx json json5 jsonl jsonnet key kml kmz log map mbox md mdx msg ndjson npy npz onnx org orc
    parquet pem pickle pkl po pot pp3 pt pth rdf rmd rst rtf safetensors sav shp shx sqlite sqlite3
    srt sub sum tab tfrecord tsv ttl txt url vcf vtt webloc wsdl xml xmp
"""
_DOCUMENTS: Final = """
    azw azw3 chm doc docm docx dot dotx epub fb2 key mobi numbers odg odp ods odt pages pdf potx
    pps ppsx ppt pptm pptx pub vsd vsdx xls xlsb xlsm xlsx xps
"""
_SOUND_AND_VIDEO: Final = """
    3g2 3gp aac ac3 aif aiff alac amr ape asf au avi caf cda dff divx dsf dts dv f4v flac flv insv
    lrv m2t m2ts m2v m3u m3u8 m4a m4b m4p m4v mid midi mka mkv mod mov mp2 mp3 mp4 mpa mpc mpeg mpg
    mts mxf oga ogg ogm ogv opus pls qt ra ram rm rmvb snd spx swf tta vob voc wav weba webm wma
    wmv wv
"""
_PROGRAMS_AND_ARCHIVES: Final = """
    7z a ace apk app ar arj bz2 cab class cpio crx deb dex dll dmg dylib ear egg elc exe gz ipa iso
    jar ko lib lz lz4 lzma lzo msi msix nupkg o obj otf pdb pyc pyd pyo qcow2 rar rpm so tar tbz
    tbz2 tgz torrent ttc ttf txz vdi vhdx vmdk war wasm whl woff woff2 xpi xz z zip zst
"""

OTHER: Final = frozenset(
    f".{each}"
    for each in " ".join(
        (_SOURCE, _TEXT_AND_DATA, _DOCUMENTS, _SOUND_AND_VIDEO, _PROGRAMS_AND_ARCHIVES)
    ).split()
)
"""In lower case, with the dot."""
