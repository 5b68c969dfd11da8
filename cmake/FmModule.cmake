# fm_module(path SOURCES … API headers… [DEPS modules…] [LINK libraries…]
#           [FENCE header-prefixes…] [PURE])
#
# One static library a module, named fm_<path with _>.  DEPS must exist
# already: the order of calls in src/CMakeLists.txt is the layering.  LINK is
# private.  FENCE lists the third-party headers this module may include; PURE
# modules may not touch clocks, files, threads or MPI.  tests/checks/layering.py
# holds every #include against this list, written to modules.json.
include_guard(GLOBAL)
define_property(GLOBAL PROPERTY FM_MODULES)

function(fm_module path)
    cmake_parse_arguments(M "PURE" "" "SOURCES;API;DEPS;LINK;FENCE" ${ARGN})
    if(M_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "fm_module(${path}): unknown ${M_UNPARSED_ARGUMENTS}")
    endif()
    string(REPLACE "/" "_" name "fm_${path}")
    list(TRANSFORM M_SOURCES PREPEND ${path}/)
    list(TRANSFORM M_API PREPEND ${path}/)
    add_library(${name} STATIC ${M_SOURCES})
    target_sources(${name} PUBLIC FILE_SET HEADERS
        BASE_DIRS ${CMAKE_CURRENT_SOURCE_DIR} FILES ${M_API})
    set_target_properties(${name} PROPERTIES
        VERIFY_INTERFACE_HEADER_SETS ON LINKER_LANGUAGE C)
    target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR}/src
        ${PROJECT_SOURCE_DIR}/include ${PROJECT_BINARY_DIR}/include)
    set(links "")
    foreach(dep IN LISTS M_DEPS)
        string(REPLACE "/" "_" target "fm_${dep}")
        if(NOT TARGET ${target})
            message(FATAL_ERROR "layering: ${path} depends on ${dep}, which "
                "is not below it in src/CMakeLists.txt")
        endif()
        list(APPEND links ${target})
    endforeach()
    target_link_libraries(${name} PUBLIC ${links} PRIVATE fm_options ${M_LINK})

    foreach(field SOURCES API DEPS FENCE)
        list(JOIN M_${field} "\", \"" joined)
        set(${field}_json "[]")
        if(joined)
            set(${field}_json "[\"${joined}\"]")
        endif()
    endforeach()
    set(pure false)
    if(M_PURE)
        set(pure true)
    endif()
    set_property(GLOBAL APPEND_STRING PROPERTY FM_MODULES
        "{\"path\": \"${path}\", \"sources\": ${SOURCES_json}, \"api\": ${API_json}, \"deps\": ${DEPS_json}, \"fence\": ${FENCE_json}, \"pure\": ${pure}},\n")
endfunction()

# Write what fm_module() collected, for the layering check.
function(fm_modules_write)
    get_property(modules GLOBAL PROPERTY FM_MODULES)
    string(REGEX REPLACE ",\n$" "\n" modules "${modules}")
    file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/modules.json
        CONTENT "[\n${modules}]\n")
endfunction()

# fm_program(name SOURCES … DEPS modules… LINK …): a program of this project.
function(fm_program name)
    cmake_parse_arguments(P "" "" "SOURCES;DEPS;LINK" ${ARGN})
    add_executable(${name} ${P_SOURCES})
    list(TRANSFORM P_DEPS REPLACE "/" "_")
    list(TRANSFORM P_DEPS PREPEND fm_)
    target_link_libraries(${name} PRIVATE fm_options ${P_DEPS} ${P_LINK})
endfunction()

# fm_test(name SOURCES … DEPS modules… LABELS … [LINK …] [ARGS …]): a CUnit
# program that ctest runs; unit tests link the module they test alone.
function(fm_test name)
    cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;DEPS;LINK;LABELS;ARGS" ${ARGN})
    fm_program(test_${name} SOURCES ${T_SOURCES} DEPS ${T_DEPS}
        LINK ${T_LINK} CUnit::CUnit)
    target_include_directories(test_${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
    set_target_properties(test_${name} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    add_test(NAME ${name} COMMAND test_${name} ${T_ARGS})
    if(NOT T_TIMEOUT)
        set(T_TIMEOUT 120)
    endif()
    set_tests_properties(${name} PROPERTIES LABELS "${T_LABELS}"
        TIMEOUT ${T_TIMEOUT} SKIP_RETURN_CODE 77)
endfunction()
