import pytest

from lxdpy.host.render import LONGEST, TemplateFailed, render

CONTEXT = {
    "trigger": "create",
    "container": {"name": "c1", "type": "container"},
    "config": {"user.a": "1", "user.b": "x"},
    "devices": {"eth0": {"hwaddr": "00:16:3e:00:00:01"}, "root": {"path": "/"}},
    "properties": {"default": "#cloud-config\n"},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ container.name }}\n", "c1\n"),
        (
            '{{ config_get("user.a", "no") }}{{ config_get("user.z", properties.default) }}',
            "1#cloud-config\n",
        ),
        ('{%- if config_get("user.z", "") == "" %}none{% else %}some{% endif %}', "none"),
        ('{{ user|default:"a:|b" }}{{ container.name|upper|add:"!" }}', "a:|bC1!"),
        (
            "{% for k, v in config %}{{ forloop.Counter }}{{ k }}={{ v }}"
            "{% if !forloop.Last && true %},{% endif %}{% empty %}none{% endfor %}",
            "1user.a=1,2user.b=x",
        ),
        ("{% for name in devices reversed %}{{ name }} {% endfor %}", "root eth0 "),
        ("{% for name in nothing %}{{ name }}{% empty %}none{% endfor %}", "none"),
        ('{% ifequal container.name "c1" %}yes{% endifequal %}', "yes"),
        ("{{ devices.eth1.hwaddr }}|{{ devices.eth0.hwaddr }}", "|00:16:3e:00:00:01"),
        ('a ! && b "c" {# {{ container.name }} #}', 'a ! && b "c" '),
        ("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m('q') }}", "<q>"),
        ("{{ '}}' }}<&>", "}}<&>"),
    ],
)
def test_a_template_of_pongo2_is_understood(template: str, text: str) -> None:
    assert render(template, CONTEXT) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}", "{{ config_get.__globals__ }}", "{{ config['__class__'] }}",
        "{{ cycler.__init__ }}", "{{ self.name }}", "{{ config.items }}",
    ],
)  # fmt: skip
def test_a_template_sees_nothing_of_python(template: str) -> None:
    assert render(template, CONTEXT) == ""


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% include '/etc/passwd' %}", "reads no other files"),
        ("{%import 'x' as y%}", "reads no other files"),
        ("{{ config.items() }}", "not safely callable"),
        ("{{ container|attr('x') }}", "No filter named 'attr'"),
        ("one\n{{", "line 2"),
        ("{% if x %}", "endif"),
        ("{{ 1 / 0 }}", "division"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "takes too much"),
        ("{% for i in container.name|ljust:90000 %}{% for j in container.name|ljust:99 %}xx{% endfor %}"
         "{% endfor %}", str(LONGEST)),
    ],
)  # fmt: skip
def test_a_bad_template_is_told_why(template: str, why: str) -> None:
    with pytest.raises(TemplateFailed, match=why):
        render(template, CONTEXT)
