"""The studio's words in English and Chinese."""

from __future__ import annotations

LANGUAGES = {"en": "English", "zh": "中文"}

_ZH = {
    "Matrix": "矩阵",
    "Edit": "编辑",
    "Verdict": "比较",
    "Gold": "标准答案",
    "Versions": "版本",
    "Products": "商品",
    "Product": "商品",
    "Ask the model": "询问模型",
    "Cancel": "取消",
    "Only where versions differ": "只看有差异的",
    "Only wrong": "只看有错的",
    "Tag": "标签",
    "Category": "类目",
    "Language": "语言",
    "Search": "搜索",
    "refused": "被拒",
    "live": "使用中",
    "right": "正确",
    "wrong": "错误",
    "missed": "遗漏",
    "Right": "正确",
    "Wrong": "错误",
    "Undo": "撤销",
    "Add a missing tag": "补充遗漏的标签",
    "Comment": "备注",
    "Save": "保存",
    "Close": "关闭",
    "products": "件商品",
    "Save as a version": "存为新版本",
    "Why is there a new version?": "为什么要有新版本？",
    "Author": "作者",
    "How examples are chosen": "示例的选取方式",
    "nearest": "最相似",
    "near and unlike each other": "相似且互不相同",
    "covering tags in doubt": "覆盖存疑的标签",
    "Examples": "示例数",
    "as the settings say": "按设置",
    "Version": "版本",
    "Compare": "比较",
    "Make it live": "设为使用中",
    "Why?": "为什么？",
    "Precision": "准确率",
    "Recall": "召回率",
    "Tags that surely changed": "确有变化的标签",
    "won": "改进",
    "lost": "退步",
    "none": "无",
    "seconds": "秒",
    "Approve": "批准",
    "Export": "导出",
    "Import": "导入",
    "State": "状态",
    "open": "未完成",
    "reviewed": "已标全",
    "approved": "已批准",
    "Dark": "深色",
    "Light": "浅色",
    "Saved": "已保存",
    "Previous product": "上一件商品",
    "Next product": "下一件商品",
    "marked right": "标为正确",
    "marked wrong": "标为错误",
    "No version is chosen.": "没有选择版本。",
    "No product matches.": "没有符合条件的商品。",
    "draft": "草稿",
    "System": "系统提示",
    "User": "用户提示",
    "problem": "问题",
    "Stopping …": "正在停止……",
    "{count} answers to ask for": "还需询问 {count} 次",
    "Starting the model's server … {seconds} s": "正在启动模型服务…… {seconds} 秒",
    "{time} left": "剩余{time}",
    "less than a minute": "不到一分钟",
    "about {minutes} min": "约 {minutes} 分钟",
    "about {hours} h": "约 {hours} 小时",
    "Saved: the list of tags is complete.": "已保存：标签已标全。",
    "Keys: ← → previous and next, D done": "快捷键：← → 上一件、下一件，D 完成",
    "Are these all of its tags?": "标签都在这里了吗？",
    "Done, list is complete": "完成，标签已标全",
    "Add tag": "添加标签",
    "Save rating": "保存评分",
    "This template cannot be shown as plain fields: line {line} has {what}": (
        "此模板无法显示为文本框：第 {line} 行有 {what}"
    ),
    "Draft of {version}, changed and kept": "{version} 的草稿，已修改并保存",
    "{version}, unchanged": "{version}，未修改",
    "{count} tokens": "{count} 个词元",
    "{share} shared with other products": "{share} 与其他商品共用",
    "cut short: {fields}": "已截断：{fields}",
    "{seconds} s · {tokens} tokens": "{seconds} 秒 · {tokens} 个词元",
    "Discard the draft?": "放弃草稿？",
    "What was changed since {version} is lost.": "对 {version} 所做的修改将丢失。",
    "Discard draft": "放弃草稿",
    "What the model reads for this product": "模型为这件商品读到的内容",
    "not asked yet": "尚未询问",
    "no tag": "无标签",
    "Rules": "规则",
    "Template (Jinja)": "模板（Jinja）",
    "Always include these products": "始终包含这些商品",
    "Rule {number}": "规则 {number}",
    "Line": "文字",
    "Remove rule {number}": "删除规则 {number}",
    "Rules for products in": "商品语言",
    "Add a rule": "添加规则",
    "{count} products imported": "已导入 {count} 件商品",
    "{count} rows could not be read": "{count} 行无法读取",
    "Approve {count} selected": "批准所选的 {count} 件",
    "Approve all reviewed": "批准全部已标全的商品",
    "Approve all {count} reviewed products?": "批准全部 {count} 件已标全的商品？",
    "Their tags become labels of the index. This cannot be undone here.": (
        "它们的标签将成为索引中的标注，此处无法撤销。"
    ),
    "Nothing is checked yet. Click a product of the matrix to check its tags.": (
        "还没有检查过任何商品。点击矩阵中的商品来检查标签。"
    ),
    "No product is reviewed. Say of one that its list is complete.": (
        "没有已标全的商品。请先确认某件商品的标签已标全。"
    ),
    "{count} products approved": "已批准 {count} 件商品",
    (
        "Here are the products whose tags people have checked. Approving them makes their "
        "tags labels of the index, which `tag` and the prompts learn from."
    ): "这里是标签经过人工检查的商品。批准后，其标签成为索引中的标注，供 `tag` 和提示词参考。",
    "Asking …": "正在询问……",
    "Filling in the prompt …": "正在填写提示词……",
    "More filters": "更多筛选",
    "Press Ask the model": "点击“询问模型”",
    "Find out how good the prompt is, in three steps": "三步看出提示词的好坏",
    (
        "See which tags it gives to {count} products whose tags are known. The first "
        "answer takes about a minute, because the model has to start."
    ): "看看它给 {count} 件已知标签的商品打什么标签。模型需要启动，第一个回答约需一分钟。",
    "Look at what is wrong": "查看错误",
    (
        "Every tag is marked right, wrong or missed. Click a product to see why, and to "
        "correct its tags."
    ): "每个标签都标为正确、错误或遗漏。点击商品可查看原因并更正标签。",
    "Change the prompt": "修改提示词",
    (
        "Under Edit, change the rules in plain words. Under Verdict, see whether that helped."
    ): "在“编辑”中用普通文字修改规则，在“比较”中查看修改是否有效。",
    "named by the model, not kept": "模型给出，未采用",
    "named by the model": "模型给出",
    "Show the products without answers": "显示未询问的商品",
    "Also products without answers": "包括未询问的商品",
    "Most different first": "差异最大的在前",
    "Download report": "下载报告",
    "{count} answers are from before the index changed. Ask the model to refresh them.": (
        "{count} 个回答早于索引的变化。请询问模型以更新。"
    ),
    "The answers come from the server at {address}.": "回答来自服务器 {address}。",
    "To use another one, stop the studio and start it with:": (
        "要换用其他服务器，请停止后用以下命令重新启动："
    ),
    "Folder or Hugging Face id": "文件夹或 Hugging Face 编号",
    "Looking for the model. A download may take minutes.": "正在查找模型，下载可能需要几分钟。",
    "Switch model": "更换模型",
    "Switch": "更换",
    "Now: {model}": "当前：{model}",
    (
        "A larger model reads better and answers more slowly. Answers of each model are "
        "kept, so you can switch back."
    ): "较大的模型理解更好，回答更慢。每个模型的回答都会保留，可以随时换回。",
    (
        "The model chose no tag in {silent} of {answers} answers, so changing the prompt "
        "changes nothing. Try a larger model."
    ): (
        "模型在 {answers} 个回答中有 {silent} 个没有选择任何标签，修改提示词不起作用。请尝试"
        "更大的模型。"
    ),
    "Answers": "回答",
    "No difference: same tags on all {count} products.": (
        "没有差异：{count} 件商品的标签全部相同。"
    ),
    "The model chose none, so the prompt cannot matter. Try a larger model.": (
        "模型没有选择任何标签，提示词不起作用。请尝试更大的模型。"
    ),
    "Nothing to compare yet. Press Compare.": "还没有可比较的内容。请点击“比较”。",
    "A and B are the same version. Choose two versions.": "A 和 B 是同一版本。请选择两个版本。",
    "{winner} is better: F1 {value} points (95% interval {low} to {high}).": (
        "{winner} 更好：F1 {value} 个百分点（95% 区间为 {low} 到 {high}）。"
    ),
    (
        "Too close to call: from {a} to {b} F1 changes by {value} points (95% interval {low} to "
        "{high}). More products may show a difference."
    ): (
        "难分高下：从 {a} 到 {b}，F1 变化 {value} 个百分点（95% 区间为 {low} 到 {high}）。更多商品"
        "或许能看出差异。"
    ),
    (
        "Too few products for a verdict: from {a} to {b} F1 changes by {value} points. At least "
        "{least} different products are needed."
    ): (
        "商品太少，无法判断：从 {a} 到 {b}，F1 变化 {value} 个百分点。至少需要 {least} 件互不相似的"
        "商品。"
    ),
    "Tags kept": "采用的标签",
    "The model alone": "仅模型",
    "Tokens of a prompt": "提示词的词元数",
    "Seconds of an answer": "每次回答的秒数",
    "Difference, points": "差异（百分点）",
    "Make {version} live": "启用 {version}",
    "{version} is live": "{version} 使用中",
    "From then on, `llmtagger tag` uses this version.": "此后 `llmtagger tag` 使用该版本。",
    "{count} products. In brackets: where the true difference lies, 19 times in 20.": (
        "{count} 件商品。方括号内为 95% 可信区间。"
    ),
    "Products that improved": "有改进的商品",
    "Products that got worse": "有退步的商品",
    "not in the vocabulary": "不在词表中",
    "not among the tags on offer": "不在可选标签中",
    "not in the product's text": "不在商品文字中",
    "named twice": "重复",
    "more tags than allowed": "超出数量",
    "too unsure": "把握不足",
    "retired": "已停用",
    "not a tag": "不是标签",
}


def translated(text: str, lang: str) -> str:
    """The text in that language; itself where there is no translation."""
    return _ZH.get(text, text) if lang == "zh" else text
