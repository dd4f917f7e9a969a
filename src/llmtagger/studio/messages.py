"""Errors and evidence in Chinese: what other layers say in English, by its pattern.

A text without a translation is shown as it is. `{}` stands for what differs from case to case.
"""

from __future__ import annotations

from functools import cache
from typing import Any

_ZH = {
    "the prompt {} uses unknown variables: {}": "提示词 {} 使用了未知变量：{}",
    "known are {}": "可用的有：{}",
    "the prompt {} lacks the block {}": "提示词 {} 缺少块 {}",
    "write {% block system %}…{% endblock %} and {% block user %}…{% endblock %}": (
        "请写 {% block system %}…{% endblock %} 和 {% block user %}…{% endblock %}"
    ),
    "the prompt {} is not valid: {}": "提示词 {} 无效：{}",
    "see prompts/README.md": "见 prompts/README.md",
    "the prompt {} is longer than {} characters": "提示词 {} 超过 {} 个字符",
    "take out what repeats": "请删去重复的内容",
    "the prompt {} does not render: {}": "提示词 {} 无法渲染：{}",
    "prompts/README.md lists the variables a template may use": (
        "prompts/README.md 列出了模板可用的变量"
    ),
    "nothing was changed": "没有任何修改",
    "no version was made": "未生成新版本",
    "the process that fills templates did not start": "填充模板的进程未能启动",
    "the prompt {} takes longer than {} s to render": "提示词 {} 渲染超过 {} 秒",
    "take out loops in loops": "请去掉嵌套的循环",
    "the prompt {} takes too much memory": "提示词 {} 占用内存过多",
    "make it simpler": "请简化",
    "A field holds one line of plain text.": "每个文本框只能写一行普通文字。",
    "For Jinja, such as {{ or {%, use the Jinja tab.": (
        "要用 {{ 或 {% 等 Jinja 语法，请用模板页。"
    ),
    "the gold book {} cannot be used: {}": "标注文件 {} 无法使用：{}",
    (
        "check that its folder is there, writable and has room; if so, the file is "
        "damaged: bring back a copy, or move it away and import your last export"
    ): (
        "请检查文件夹是否存在、可写且有空间；若都正常，则文件已损坏：请恢复备份，或移走它并导"
        "入上次的导出"
    ),
    "{} is no gold book": "{} 不是标注文件",
    "move it away: a new one is made in its place": "请移走它，会自动新建一个",
    "{} has the format {}, this llmtagger writes {}": "{} 的格式是 {}，本程序写的是 {}",
    "use the llmtagger that wrote it, or a newer one": "请使用写它的版本或更新的版本",
    "a tag without a visible character": "标签没有可见字符",
    "give the tag a name": "请写出标签",
    "{} stars": "{} 颗星",
    "give 1 to 5 stars, or none": "请给 1 到 5 颗星，或不给",
    "the gold book does not know the product {}": "标注文件中没有商品 {}",
    "mark one of its tags first, or import it": "请先标注它的一个标签，或导入它",
    "others have been writing to {} for {} seconds": "其他程序写入 {} 已有 {} 秒",
    "try again; if nobody is, some process holds it without an end": (
        "请重试；若没有人在用，则有进程一直占用它"
    ),
    "{} is no list of tasks": "{} 不是任务列表",
    "export JSON or JSON-MIN from Label Studio": "请从 Label Studio 导出 JSON 或 JSON-MIN",
    "{} is larger than {} MiB": "{} 大于 {} MiB",
    "split it into several files": "请拆成几个文件",
    "the start was cancelled": "启动已取消",
    "ask again to start it": "再次询问即可启动",
    "the model was stopped meanwhile": "模型已停止",
    "ask again": "请再次询问",
    "the kept answers {} cannot be used: {}": "保存的回答 {} 无法使用：{}",
    "if the disk has room, remove that file: what it held is asked again": (
        "若磁盘有空间，请删除该文件，其内容会重新询问"
    ),
    "There is no model called {}.": "没有名为 {} 的模型。",
    "{} is not a model: it has no config.json.": "{} 不是模型：没有 config.json。",
    "{} holds no weights in safetensors format.": "{} 中没有 safetensors 格式的权重。",
    "The model {} is not on this machine, and {} cannot be reached.": (
        "本机没有模型 {}，并且无法连接 {}。"
    ),
    "Hugging Face does not give out {}: {}": "无法从 Hugging Face 获取 {}：{}",
    "No server answers at {}": "{} 没有服务器应答",
    "The server did not come up within {} s.": "服务器在 {} 秒内没有启动。",
    "Its log may say why: {}": "原因可能在日志中：{}",
    "vLLM ended while starting {}: {}": "vLLM 在启动 {} 时退出：{}",
    "vLLM cannot serve {}: {}": "vLLM 无法运行 {}：{}",
    "The whole log: {}": "完整日志：{}",
    "vLLM is not installed.": "没有安装 vLLM。",
    "no labelled product was tried with both versions": "没有两个版本都试过的已标注商品",
    "try both on products whose tags are known, or mark tags in the studio": (
        "请在已知标签的商品上试用两个版本，或在此标注"
    ),
    "{} cannot be used: {}": "{} 无法使用：{}",
    (
        "make room on the disk, or its folder writable; if neither is amiss, end the "
        "studio and delete that file: no gold is in it"
    ): "请腾出磁盘空间或使文件夹可写；若都正常，请停止后删除该文件：其中没有标注",
    "cannot listen on {}, port {}: {}": "无法监听 {} 的端口 {}：{}",
    "check --host and --port": "请检查 --host 和 --port",
    "port {} is in use: another studio or program listens on it": "端口 {} 已被其他程序占用",
    "end that one, or choose another port with --port (0: any that is free)": (
        "请结束它，或用 --port 换一个端口（0：任意空闲端口）"
    ),
    "try again": "请重试",
    "another process is writing to {}": "另一个进程正在写入 {}",
    "wait until it has finished": "请等待其完成",
    "“{}” in {}": "“{}”在 {} 中",
    "model": "模型",
    "new, by the model": "模型新给出",
    "its name is near the text": "名称与文字相近",
}


def explained(text: str, lang: str) -> str:
    """A message in that language; itself where there is no translation.

    >>> explained("the prompt tag.v1 takes too much memory", "zh")
    '提示词 tag.v1 占用内存过多'
    """
    if lang != "zh":
        return text
    if text in _ZH:
        return _ZH[text]
    for pattern, translation in _patterns():
        if found := pattern.fullmatch(text):
            pieces = translation.split("{}")
            return pieces[0] + "".join(map("".join, zip(found.groups(), pieces[1:], strict=True)))
    return text


@cache
def _patterns() -> list[tuple[Any, str]]:
    """The patterns with the most text of their own first; messages quote foreign text."""
    import re2  # linear in the text, however often a message leaves something out

    found = sorted((each for each in _ZH if "{}" in each), key=len, reverse=True)
    return [
        (re2.compile("(?s)" + "(.*?)".join(map(re2.escape, each.split("{}")))), _ZH[each])
        for each in found
    ]
